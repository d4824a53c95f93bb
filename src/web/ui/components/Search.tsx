import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "./Icon";

interface Props {
  readonly label: string;
  readonly placeholder: string;
  readonly value: string;
  readonly onSearch: (text: string) => void;
}

const PAUSE = 250;

/** A box to search by: it tells what was typed after a pause, and no news of elsewhere disturbs the typing. */
export function Search({ label, placeholder, value, onSearch }: Props) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  const told = useRef(value);
  useEffect(() => {
    if (value !== told.current) setText(value);
    told.current = value;
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const tell = (wanted: string) => {
    clearTimeout(timer.current);
    told.current = wanted;
    onSearch(wanted);
  };
  return (
    <label class="search">
      <Icon name="search" />
      <span class="hidden">{label}</span>
      <input
        type="search"
        placeholder={placeholder}
        value={text}
        onInput={event => {
          const wanted = event.currentTarget.value;
          setText(wanted);
          clearTimeout(timer.current);
          timer.current = setTimeout(() => tell(wanted), PAUSE);
        }}
        onKeyDown={event => event.key === "Enter" && tell(event.currentTarget.value)}
      />
    </label>
  );
}
