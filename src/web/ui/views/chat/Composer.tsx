import { useEffect, useRef, useState } from "preact/hooks";
import type { Model } from "../../api/types";
import { Icon } from "../../components/Icon";
import type { Message, Settings } from "../../state/conversation";
import { configOf } from "../../text/fields";
import { timeoutFor } from "../../text/limits";
import { duration } from "../../text/times";

interface Props {
  readonly chatId: string;
  readonly model: Model | undefined;
  readonly busy: boolean;
  readonly settings: Settings;
  readonly earlier: readonly Message[];
  readonly onSend: (text: string) => void;
  readonly onStop: () => void;
}

const CHARACTERS_PER_TOKEN = 4;

/** Where a message is written; what is not sent yet outlives a reload. */
export function Composer({ chatId, model, busy, settings, earlier, onSend, onStop }: Props) {
  const key = `model-ledger.draft.${chatId}`;
  const field = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(() => sessionStorage.getItem(key) ?? "");
  const sendable = text.trim() !== "" && model !== undefined && !busy;
  useEffect(() => {
    if (matchMedia("(pointer: fine)").matches) field.current?.focus({ preventScroll: true });
  }, []);
  const write = (next: string) => {
    setText(next);
    if (next) sessionStorage.setItem(key, next);
    else sessionStorage.removeItem(key);
  };
  const send = () => {
    if (!sendable) return;
    write("");
    onSend(text.trim());
  };
  return (
    <form
      class="composer"
      onSubmit={event => {
        event.preventDefault();
        send();
      }}
    >
      <label class="hidden" for="composer">
        Message
      </label>
      <textarea
        ref={field}
        id="composer"
        rows={1}
        placeholder={model ? "Write a message" : "Choose a model that is in service"}
        value={text}
        aria-describedby="composer-hint"
        onInput={event => write(event.currentTarget.value)}
        onKeyDown={event => {
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
      />
      {busy ? (
        <button
          type="button"
          class="button button-round"
          aria-label="Stop"
          title="Stop (Esc)"
          onClick={onStop}
        >
          <Icon name="stop" />
        </button>
      ) : (
        <button
          type="submit"
          class="button button-primary button-round"
          aria-label="Send"
          title="Send (Enter)"
          disabled={!sendable}
        >
          <Icon name="send" />
        </button>
      )}
      <p class="composer-hint quiet" id="composer-hint">
        {model ? timeTold(model, settings, earlier, text) : ""}
      </p>
    </form>
  );
}

function timeTold(model: Model, settings: Settings, earlier: readonly Message[], text: string): string {
  const characters = earlier.reduce(
    (sum, message) => sum + message.text.length,
    settings.system.length + text.length,
  );
  const tokens = Math.ceil(characters / CHARACTERS_PER_TOKEN);
  const limit = settings.maxTokens === null ? undefined : Math.min(settings.maxTokens, model.max_tokens);
  const seconds = timeoutFor(configOf(model), tokens, limit);
  return `about ${tokens.toLocaleString("en")} tokens, up to ${duration(seconds)} for this prompt`;
}
