import { useId, useRef, useState } from "preact/hooks";
import type { Model } from "../../api/types";
import { Icon } from "../../components/Icon";
import { rank } from "../../text/rank";
import { visible } from "../../text/visible";

interface Props {
  readonly chosen: string | null;
  readonly byId: ReadonlyMap<string, Model>;
  readonly onChoose: (id: string) => void;
}

/** Which model answers: a button that opens a list to type into (WAI-ARIA combobox). */
export function ModelPicker({ chosen, byId, onChoose }: Props) {
  const list = useId();
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [open, setOpen] = useState(false);
  const model = chosen === null ? undefined : byId.get(chosen);
  const all = [...byId]
    .filter(([, { enabled }]) => enabled)
    .sort(([, a], [, b]) => Number(b.is_default) - Number(a.is_default));
  const find = (wanted: string) => rank(all, wanted, ([id, { name }]) => `${id} ${name}`).slice(0, 100);
  const shown = open ? find(text) : [];
  const choose = (id: string | undefined) => {
    box.current?.hidePopover();
    button.current?.focus();
    if (id) onChoose(id);
  };
  const press = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const next = (at + step + shown.length) % Math.max(1, shown.length);
      setAt(next);
      document.getElementById(`${list}-${next}`)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      // Who types fast is ahead of what is shown.
      const typed = field.current?.value ?? text;
      choose((typed === text ? shown[at] : find(typed)[0])?.[0]);
    }
  };
  return (
    <div class="picker">
      <button
        ref={button}
        type="button"
        class="button picker-button"
        popovertarget={`${list}-box`}
        aria-haspopup="listbox"
      >
        <span class="hidden">Model: </span>
        <span class="figure picker-name">{chosen ?? "Choose a model"}</span>
        {model && <span class="quiet figure">v{model.version}</span>}
        {model?.is_default && <span class="badge">default</span>}
        {chosen !== null && !model?.enabled && <span class="badge badge-off">off</span>}
        <Icon name="down" />
      </button>
      <div
        ref={box}
        id={`${list}-box`}
        popover="auto"
        class="picker-box"
        onToggle={event => {
          const opened = event.newState === "open";
          setOpen(opened);
          setText("");
          setAt(0);
          if (opened) field.current?.focus();
        }}
      >
        <input
          ref={field}
          type="text"
          role="combobox"
          aria-label="Find a model"
          aria-expanded={open}
          aria-controls={list}
          aria-autocomplete="list"
          aria-activedescendant={shown.length > 0 ? `${list}-${at}` : undefined}
          placeholder="Find a model"
          autoComplete="off"
          value={text}
          onInput={event => {
            setText(event.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={press}
        />
        <div id={list} role="listbox" aria-label="Models">
          {shown.map(([id, { name, version, is_default }], place) => (
            <div
              key={id}
              id={`${list}-${place}`}
              role="option"
              tabIndex={-1}
              aria-selected={place === at}
              onMouseMove={() => setAt(place)}
              onClick={() => choose(id)}
              onKeyDown={press}
            >
              <span class="figure">{id}</span>
              {is_default && <span class="badge">default</span>}
              <span class="quiet option-note">{visible(name)}</span>
              <span class="push" />
              <span class="quiet figure">v{version}</span>
            </div>
          ))}
        </div>
      </div>
    </div>
  );
}
