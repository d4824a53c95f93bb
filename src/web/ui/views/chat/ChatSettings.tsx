import { useId } from "preact/hooks";
import type { Model } from "../../api/types";
import { Icon } from "../../components/Icon";
import type { Settings } from "../../state/conversation";
import { number } from "../../text/times";

interface Props {
  readonly settings: Settings;
  readonly model: Model | undefined;
  readonly onSet: (settings: Settings) => void;
}

/** What this conversation asks beside its words, and what holds where it asks nothing. */
export function ChatSettings({ settings, model, onSet }: Props) {
  const box = useId();
  const { system, temperature, maxTokens } = settings;
  const count = [system !== "", temperature !== null, maxTokens !== null].filter(Boolean).length;
  const most = model?.max_tokens;
  return (
    <div class="picker">
      <button type="button" class="button button-quiet" popovertarget={box}>
        <Icon name="tune" /> Settings{count > 0 && <span class="badge">{count}</span>}
      </button>
      <div
        id={box}
        popover="auto"
        class="picker-box settings-box"
        role="dialog"
        aria-label="Settings of this chat"
      >
        <div class="field">
          <label for={`${box}-system`}>System prompt</label>
          <textarea
            id={`${box}-system`}
            rows={3}
            value={system}
            onInput={event => onSet({ ...settings, system: event.currentTarget.value })}
          />
        </div>
        <div class="field">
          <label for={`${box}-temperature`}>Temperature</label>
          <input
            id={`${box}-temperature`}
            class="figure"
            type="number"
            min={0}
            max={2}
            step={0.1}
            disabled={model?.supports_temperature === false}
            value={temperature ?? ""}
            aria-describedby={`${box}-temperature-hint`}
            onInput={event => onSet({ ...settings, temperature: figure(event.currentTarget) })}
          />
          <p class="hint" id={`${box}-temperature-hint`}>
            {model?.supports_temperature === false
              ? "This model takes none, says its configuration."
              : temperature === null
                ? "The provider’s own: this chat asks for none."
                : `${number(temperature)}, from this chat.`}
          </p>
        </div>
        <div class="field">
          <label for={`${box}-tokens`}>Max tokens</label>
          <input
            id={`${box}-tokens`}
            class="figure"
            type="number"
            min={1}
            value={maxTokens ?? ""}
            aria-describedby={`${box}-tokens-hint`}
            onInput={event => onSet({ ...settings, maxTokens: figure(event.currentTarget) })}
          />
          <p class="hint" id={`${box}-tokens-hint`}>
            {tokensTold(maxTokens, most, model?.version)}
          </p>
        </div>
      </div>
    </div>
  );
}

function tokensTold(asked: number | null, most: number | undefined, version: number | undefined): string {
  if (most === undefined)
    return asked === null ? "The provider’s own limit." : `${number(asked)}, from this chat.`;
  const ceiling = `${number(most)} is the most that v${version} of the model allows`;
  if (asked === null) return `The provider’s own limit; ${ceiling}.`;
  return asked > most ? `${number(most)}, as ${ceiling}.` : `${number(asked)}, from this chat; ${ceiling}.`;
}

function figure(input: HTMLInputElement): number | null {
  return input.value === "" || Number.isNaN(input.valueAsNumber) ? null : input.valueAsNumber;
}
