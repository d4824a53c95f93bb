import { useState } from "preact/hooks";
import { Dialog } from "../../components/Dialog";
import { Icon } from "../../components/Icon";
import { Menu } from "../../components/Menu";
import { chats, forget, rename } from "../../state/chats";
import { asMarkdown, type Conversation } from "../../state/conversation";
import { notify } from "../../state/notices";
import { go, usePlace } from "../../state/router";
import { useStore } from "../../state/store";

/** The sidebar's list of conversations, the newest first. */
export function ChatsPanel() {
  const kept = useStore(chats);
  const { path } = usePlace();
  const [text, setText] = useState("");
  const [renaming, setRenaming] = useState<Conversation | null>(null);
  const wanted = text.trim().toLowerCase();
  const shown = [...(kept?.values() ?? [])].filter(chat => holds(chat, wanted)).sort((a, b) => b.at - a.at);
  return (
    <>
      <div class="panel-head">
        <label class="search">
          <Icon name="search" />
          <span class="hidden">Search conversations</span>
          <input
            type="search"
            placeholder="Search conversations"
            value={text}
            onInput={event => setText(event.currentTarget.value)}
          />
        </label>
        <a class="button button-icon" href="/chat" aria-label="New chat">
          <Icon name="plus" />
        </a>
      </div>
      <ul class="list">
        {shown.map(chat => (
          <li key={chat.id} class="list-with-menu">
            <a href={`/chat/${chat.id}`} aria-current={path === `/chat/${chat.id}` ? "page" : undefined}>
              <span class="list-name">{chat.title}</span>
            </a>
            <Menu
              label={`More about ${chat.title}`}
              choices={[
                { label: "Rename", run: () => setRenaming(chat) },
                { label: "Export as Markdown", run: () => download(chat) },
                { label: "Delete", run: () => remove(chat, path), danger: true },
              ]}
            />
          </li>
        ))}
      </ul>
      {kept && shown.length === 0 && (
        <p class="quiet panel-note">
          {wanted
            ? "No conversation holds these words"
            : "Conversations will stand here, in this browser only."}
        </p>
      )}
      {renaming && <Rename chat={renaming} onClose={() => setRenaming(null)} />}
    </>
  );
}

const holds = ({ title, messages }: Conversation, wanted: string) =>
  !wanted ||
  title.toLowerCase().includes(wanted) ||
  messages.some(message => message.text.toLowerCase().includes(wanted));

function remove(chat: Conversation, path: string): void {
  const undo = forget(chat.id);
  if (path === `/chat/${chat.id}`) go("/chat", { replace: true });
  notify(`“${chat.title}” is deleted`, "good", { label: "Undo", run: undo });
}

function download(chat: Conversation): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([asMarkdown(chat)], { type: "text/markdown" }));
  link.download = `${chat.title.replace(/[^\w -]+/g, "").trim() || "chat"}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function Rename({ chat, onClose }: { readonly chat: Conversation; readonly onClose: () => void }) {
  const [title, setTitle] = useState(chat.title);
  return (
    <Dialog title="Rename the conversation" onClose={onClose}>
      <form
        onSubmit={event => {
          event.preventDefault();
          rename(chat.id, title);
          onClose();
        }}
      >
        <div class="field">
          <label for="title">Title</label>
          <input
            id="title"
            data-first
            maxLength={200}
            value={title}
            onInput={event => setTitle(event.currentTarget.value)}
          />
        </div>
        <footer class="dialog-foot">
          <button type="button" class="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="button button-primary">
            Rename
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
