import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Model } from "../../api/types";
import { Icon } from "../../components/Icon";
import { Empty, Failure, Loading } from "../../components/States";
import * as state from "../../state/chats";
import { type Conversation, NO_SETTINGS, type Settings } from "../../state/conversation";
import { defaultOf, models, readModels } from "../../state/models";
import { go, setQuery, usePlace } from "../../state/router";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { ChatSettings } from "./ChatSettings";
import { Composer } from "./Composer";
import { MessageView } from "./MessageView";
import { ModelPicker } from "./ModelPicker";

/** A conversation, or the beginning of one (`id` null). */
export function ChatView({ id }: { readonly id: string | null }) {
  const kept = useStore(state.chats);
  const listing = useStore(models);
  if (kept === null || listing.is === "loading") return <Loading what="the conversation" />;
  if (listing.is === "failed") return <Failure error={listing.error} onRetry={() => void readModels()} />;
  const chat = id === null ? null : kept.get(id);
  if (chat === undefined) {
    return (
      <Empty title="This conversation is not in this browser">
        <p>
          Conversations are kept where they were held. <a href="/chat">Begin a new one</a>.
        </p>
      </Empty>
    );
  }
  return <Chat key={id ?? "new"} chat={chat} byId={listing.byId} />;
}

interface Props {
  readonly chat: Conversation | null;
  readonly byId: ReadonlyMap<string, Model>;
}

function Chat({ chat, byId }: Props) {
  const { query } = usePlace();
  const [fresh, setFresh] = useState<Settings>(NO_SETTINGS);
  const chosen = query.get("model") ?? chat?.model ?? defaultOf(byId);
  const model = chosen === null ? undefined : byId.get(chosen);
  const usable = model?.enabled ? model : undefined;
  const messages = chat?.messages ?? [];
  const last = messages.at(-1);
  const busy = last?.role === "assistant" && last.outcome === "streaming";
  const settings = chat?.settings ?? fresh;
  const scroll = useStickyScroll(messages.length, last?.text.length ?? 0);

  useEffect(() => {
    document.title = `${chat?.title ?? "New chat"} · Model Ledger`;
  }, [chat?.title]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key === "Escape" && busy && chat && !document.querySelector("dialog[open], :popover-open"))
        state.stop(chat.id);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [busy, chat?.id]);

  const choose = (next: string) => {
    if (chat) state.update(chat.id, before => ({ ...before, model: next }));
    setQuery({ model: chat ? null : next });
  };
  const set = (next: Settings) => {
    if (chat) state.update(chat.id, before => ({ ...before, settings: next }));
    else setFresh(next);
  };
  const send = (text: string) => {
    if (!chosen) return;
    const target = chat ?? state.begin(chosen);
    if (!chat) state.update(target.id, before => ({ ...before, settings: fresh }));
    state.ask(target.id, text, chosen);
    if (!chat) go(`/chat/${target.id}`, { replace: true });
    scroll.toEnd();
  };
  return (
    <div class="chat">
      <header class="chat-head">
        <h1 class="hidden">{chat?.title ?? "New chat"}</h1>
        <ModelPicker chosen={chosen} byId={byId} onChoose={choose} />
        <ChangedSince model={usable} id={chosen} chat={chat} />
        <span class="push" />
        <ChatSettings settings={settings} model={usable} onSet={set} />
      </header>
      <div class="chat-scroll" ref={scroll.box} onScroll={scroll.look}>
        <div class="chat-column" aria-busy={busy}>
          {messages.length === 0 && <Welcome byId={byId} model={usable} />}
          {chat &&
            messages.map((message, place) => (
              <MessageView
                key={message.id}
                chat={chat}
                message={message}
                before={messages[place - 2]}
                last={place === messages.length - 1}
                model={usable ? (chosen as string) : null}
              />
            ))}
          {chosen !== null && !usable && (
            <OutOfService id={chosen} model={model} byId={byId} onChoose={choose} />
          )}
        </div>
      </div>
      <div class="chat-foot">
        {!scroll.atEnd && (
          <button type="button" class="button button-small jump" onClick={scroll.toEnd}>
            <Icon name="down" /> Latest
          </button>
        )}
        <Composer
          key={chat?.id ?? "new"}
          chatId={chat?.id ?? "new"}
          model={usable}
          busy={busy}
          settings={settings}
          earlier={messages}
          onSend={send}
          onStop={() => chat && state.stop(chat.id)}
        />
      </div>
    </div>
  );
}

/** Keeps the end in sight while the reader is there, and leaves them alone while they are not. */
function useStickyScroll(count: number, length: number) {
  const box = useRef<HTMLDivElement>(null);
  const [atEnd, setAtEnd] = useState(true);
  const follows = useRef(true);
  const toEnd = () => {
    follows.current = true;
    const place = box.current;
    if (place) place.scrollTop = place.scrollHeight;
  };
  const look = () => {
    const place = box.current;
    if (!place) return;
    follows.current = place.scrollHeight - place.scrollTop - place.clientHeight < 60;
    setAtEnd(follows.current);
  };
  useLayoutEffect(() => {
    if (follows.current) toEnd();
  }, [count, length]);
  useEffect(() => {
    // Messages get their real height only when they come into sight.
    const watch = new ResizeObserver(() => follows.current && toEnd());
    for (const part of [box.current, box.current?.firstElementChild]) if (part) watch.observe(part);
    return () => watch.disconnect();
  }, []);
  return { box, atEnd, toEnd, look };
}

interface ChangedProps {
  readonly model: Model | undefined;
  readonly id: string | null;
  readonly chat: Conversation | null;
}

/** Says that the configuration is another one than the one that answered last. */
function ChangedSince({ model, id, chat }: ChangedProps) {
  const answered = chat?.messages.findLast(message => message.role === "assistant" && message.model === id);
  if (!model || !id || answered?.role !== "assistant" || answered.version === null) return null;
  if (answered.version >= model.version) return null;
  return (
    <a
      class="changed-since"
      href={`/models/${encodeURIComponent(id)}/compare?from=${answered.version}&to=${model.version}`}
    >
      changed since the last answer, v{answered.version} → v{model.version}
    </a>
  );
}

function Welcome({
  byId,
  model,
}: {
  readonly byId: ReadonlyMap<string, Model>;
  readonly model: Model | undefined;
}) {
  if (byId.size === 0) {
    return (
      <Empty title="No model yet">
        <p>Add one, and chat with it a minute later.</p>
        {may("models:change") && (
          <p>
            <a class="button button-primary" href="/models/~new">
              Add model
            </a>
          </p>
        )}
      </Empty>
    );
  }
  return (
    <div class="welcome">
      <h2>What shall it answer?</h2>
      <p class="quiet">
        {model
          ? "Every answer names the model and the version of its configuration."
          : "Choose a model above to begin."}
      </p>
    </div>
  );
}

interface OutProps {
  readonly id: string;
  readonly model: Model | undefined;
  readonly byId: ReadonlyMap<string, Model>;
  readonly onChoose: (id: string) => void;
}

/** The chosen model is gone: nothing else takes its place unless somebody says so. */
function OutOfService({ id, model, byId, onChoose }: OutProps) {
  const fallback = defaultOf(byId);
  return (
    <div class="banner" role="status">
      <p>
        <strong class="figure">{id}</strong> {model ? "is disabled" : "is not in service any more"}. The
        conversation stays; to go on, choose another model.
      </p>
      {fallback && fallback !== id && byId.get(fallback)?.enabled && (
        <button type="button" class="button button-small" onClick={() => onChoose(fallback)}>
          Use {fallback}, the default
        </button>
      )}
    </div>
  );
}
