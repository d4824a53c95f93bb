import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Failure, Loading } from "../components/States";

/** A view whose code is fetched when it is first shown. */
export function later<P extends object>(fetchView: () => Promise<ComponentType<P>>): ComponentType<P> {
  let fetched: ComponentType<P> | null = null;
  return function Later(props: P) {
    const [, look] = useState({});
    const [error, setError] = useState<Error | null>(null);
    const load = () =>
      fetchView().then(
        found => {
          fetched = found;
          look({});
        },
        () => setError(new Error("This part of the page could not be fetched.")),
      );
    useEffect(() => {
      if (!fetched) void load();
    }, []);
    const View = fetched;
    if (View) return <View {...props} />;
    return error ? <Failure error={error} onRetry={() => location.reload()} /> : <Loading what="the view" />;
  };
}
