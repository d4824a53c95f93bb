/** Where conversations are kept: this browser's own database, and nowhere else. */
import type { Conversation } from "./conversation";

const NAME = "model-ledger";
const KIND = "conversations";

let opened: Promise<IDBDatabase> | null = null;

export function readAll(): Promise<Conversation[]> {
  return run("readonly", kept => kept.getAll() as IDBRequest<Conversation[]>);
}

export function read(id: string): Promise<Conversation | undefined> {
  return run("readonly", kept => kept.get(id) as IDBRequest<Conversation | undefined>);
}

export async function write(conversation: Conversation): Promise<void> {
  await run("readwrite", kept => kept.put(conversation));
}

export async function remove(id: string): Promise<void> {
  await run("readwrite", kept => kept.delete(id));
}

async function run<T>(mode: IDBTransactionMode, work: (kept: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  opened ??= open();
  const database = await opened;
  return settled(work(database.transaction(KIND, mode).objectStore(KIND)));
}

function open(): Promise<IDBDatabase> {
  const asked = indexedDB.open(NAME, 1);
  asked.onupgradeneeded = () => asked.result.createObjectStore(KIND, { keyPath: "id" });
  return settled(asked);
}

function settled<T>(asked: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}
