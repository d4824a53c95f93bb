import { Component, type ComponentChild, createElement } from "preact";

/** A view that is drawn again only when one of its properties is another object. */
export function memo<P extends object>(view: (props: P) => ComponentChild) {
  class Memo extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const [old, now] = [this.props as Record<string, unknown>, next as Record<string, unknown>];
      return Object.keys({ ...old, ...now }).some(name => old[name] !== now[name]);
    }
    override render(): ComponentChild {
      return createElement(view as never, this.props as never);
    }
  }
  return Memo as unknown as (props: P) => ReturnType<typeof createElement>;
}
