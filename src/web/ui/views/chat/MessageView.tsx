import { useState } from "preact/hooks";
import * as api from "../../api/models";
import { Icon } from "../../components/Icon";
import { copy, Markdown } from "../../components/Markdown";
import { memo } from "../../components/memo";
import { useRead } from "../../components/useRead";
import * as state from "../../state/chats";
import type { Answer, Conversation, Message, Outcome, Question } from "../../state/conversation";
import { label } from "../../text/fields";
import { duration, number } from "../../text/times";
import { visible } from "../../text/visible";

interface Props {
  readonly chat: Conversation;
  readonly message: Message;
  /** The answer before this one. */
  readonly before: Message | undefined;
  readonly last: boolean;
  /** The model that would answer now; null when none can. */
  readonly model: string | null;
}

export function MessageView({ chat, message, before, last, model }: Props) {
  if (message.role === "user") return <QuestionView chatId={chat.id} question={message} model={model} />;
  const changed =
    before?.role === "assistant" &&
    before.model === message.model &&
    before.version !== null &&
    message.version !== null;
  return (
    <>
      {changed && before.version !== message.version && (
        <VersionChange id={message.model} from={before.version as number} to={message.version as number} />
      )}
      <AnswerView chatId={chat.id} answer={message} last={last} model={model} />
    </>
  );
}

interface QuestionProps {
  readonly chatId: string;
  readonly question: Question;
  readonly model: string | null;
}

const QuestionView = memo(({ chatId, question, model }: QuestionProps) => {
  const [text, setText] = useState<string | null>(null);
  const resend = () => {
    if (!model || !text?.trim()) return;
    setText(null);
    state.resend(chatId, question.id, text.trim(), model);
  };
  return (
    <article class="message message-user">
      <h2 class="hidden">You</h2>
      {text === null ? (
        <>
          <p class="message-text">{visible(question.text)}</p>
          <div class="message-tools">
            <button
              type="button"
              class="button button-small button-quiet"
              onClick={() => setText(question.text)}
            >
              <Icon name="edit" /> Edit
            </button>
            <button
              type="button"
              class="button button-small button-quiet"
              onClick={() => void copy(question.text, "Message copied")}
            >
              <Icon name="copy" /> Copy
            </button>
          </div>
        </>
      ) : (
        <form
          class="message-edit"
          onSubmit={event => {
            event.preventDefault();
            resend();
          }}
        >
          <textarea
            ref={box => box?.focus()}
            aria-label="Edit the message"
            rows={3}
            value={text}
            onInput={event => setText(event.currentTarget.value)}
            onKeyDown={event => {
              if (event.key === "Escape") setText(null);
              if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              resend();
            }}
          />
          <p class="row">
            <button type="button" class="button button-small" onClick={() => setText(null)}>
              Cancel
            </button>
            <button type="submit" class="button button-small button-primary" disabled={!model}>
              Send again
            </button>
            <span class="hint">What follows it is replaced.</span>
          </p>
        </form>
      )}
    </article>
  );
});

interface AnswerProps {
  readonly chatId: string;
  readonly answer: Answer;
  readonly last: boolean;
  readonly model: string | null;
}

const OUTCOMES: Readonly<Partial<Record<Outcome, string>>> = {
  stopped: "stopped",
  interrupted: "interrupted by a reload",
  cut: "cut by the provider",
};

const AnswerView = memo(({ chatId, answer, last, model }: AnswerProps) => {
  const { text, outcome, version, failure } = answer;
  const streaming = outcome === "streaming";
  const unfinished =
    outcome === "stopped" || outcome === "interrupted" || outcome === "cut" || answer.atLimit;
  const link = `/models/${encodeURIComponent(answer.model)}`;
  return (
    <article class="message message-answer" aria-busy={streaming}>
      <h2 class="hidden">{answer.model}</h2>
      {text && <Markdown text={text} />}
      {streaming && text === "" && <p class="thinking">waiting for the first word</p>}
      {failure && (
        <div class="failure">
          <p>
            <strong>{failure.title}.</strong> {visible(failure.detail)}
          </p>
          {failure.requestId && (
            <p class="quiet">
              Request <code>{failure.requestId}</code>
            </p>
          )}
          <p class="row">
            {model && (
              <button
                type="button"
                class="button button-small"
                onClick={() => state.regenerate(chatId, answer.id, model)}
              >
                Try again
              </button>
            )}
            <a class="button button-small button-quiet" href={link}>
              Open {answer.model}
            </a>
          </p>
        </div>
      )}
      <div class="message-meta quiet">
        <span class="figure">
          {version === null ? (
            answer.model
          ) : (
            <a href={`${link}/versions/${version}`}>
              {answer.model} v{version}
            </a>
          )}
        </span>
        {!streaming && answer.seconds > 0 && <span class="figure">{duration(answer.seconds)}</span>}
        {answer.tokens !== null && <span class="figure">{number(answer.tokens)} tok</span>}
        {OUTCOMES[outcome] && <span class="badge badge-off">{OUTCOMES[outcome]}</span>}
        {answer.atLimit && <span class="badge badge-off">at its token limit</span>}
        {!streaming && (
          <span class="message-tools">
            {text && (
              <button
                type="button"
                class="button button-small button-quiet"
                onClick={() => void copy(text, "Answer copied")}
              >
                <Icon name="copy" /> Copy
              </button>
            )}
            {model && !failure && (
              <button
                type="button"
                class="button button-small button-quiet"
                onClick={() => state.regenerate(chatId, answer.id, model)}
              >
                <Icon name="again" /> Regenerate
              </button>
            )}
            {last && model && unfinished && text && (
              <button
                type="button"
                class="button button-small button-quiet"
                onClick={() => state.ask(chatId, "Go on exactly where you stopped.", model)}
              >
                Continue
              </button>
            )}
          </span>
        )}
      </div>
    </article>
  );
});

/** The hairline in a conversation where the configuration became another one. */
function VersionChange({
  id,
  from,
  to,
}: {
  readonly id: string;
  readonly from: number;
  readonly to: number;
}) {
  const [read] = useRead(() => api.diff(id, from, to), `${id} ${from} ${to}`);
  const fields =
    read.is === "ready" ? read.value.changes.map(({ field }) => label(field).toLowerCase()).join(", ") : "";
  return (
    <p class="version-change">
      <a href={`/models/${encodeURIComponent(id)}/compare?from=${from}&to=${to}`}>
        <span class="figure">
          v{from} → v{to}
        </span>
        {fields && `: ${fields}`}
      </a>
    </p>
  );
}
