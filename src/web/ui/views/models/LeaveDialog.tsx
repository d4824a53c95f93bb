import { Dialog } from "../../components/Dialog";

interface Props {
  readonly onStay: () => void;
  readonly onLeave: () => void;
}

export function LeaveDialog({ onStay, onLeave }: Props) {
  return (
    <Dialog title="Leave without saving?" onClose={onStay}>
      <p>What was changed in this form is not saved yet.</p>
      <footer class="dialog-foot">
        <button type="button" class="button" data-first onClick={onStay}>
          Stay
        </button>
        <button type="button" class="button button-danger" onClick={onLeave}>
          Discard the changes
        </button>
      </footer>
    </Dialog>
  );
}
