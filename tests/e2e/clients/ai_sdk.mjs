// Vercel's AI SDK: its provider for compatible servers, and OpenAI's own for responses.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, jsonSchema, streamText, tool } from "ai";
import { z } from "zod";

import { HELLO, TEXTS, WEATHER, play } from "./scenarios.mjs";

const tools = {
  [WEATHER.name]: tool({ description: WEATHER.description, inputSchema: jsonSchema(WEATHER.parameters) }),
};

function describe(error) {
  const last = error.lastError ?? error; // of several tries
  return {
    class: error.name ?? typeof error,
    status: last.statusCode,
    code: last.data?.error?.code,
    retry_after: last.responseHeaders?.["retry-after"],
  };
}

function identity({ headers }) {
  const read = (name) => headers[`x-model-ledger-${name}`];
  return { model: read("model"), version: read("version"), position: read("position") };
}

function scenarios({ base_url: baseURL, token: apiKey, models }, leaving) {
  const settings = { name: "ledger", baseURL, includeUsage: true, supportsStructuredOutputs: true };
  const provider = createOpenAICompatible({ ...settings, apiKey });
  const { responses } = createOpenAI({ baseURL, apiKey });
  const stranger = createOpenAICompatible({ ...settings, apiKey: "mlk_unknown" });

  const whole = async (found, model, more = {}) => {
    const result = await generateText({ model, prompt: HELLO, ...more });
    found.identity = identity(result.response);
    found.text = result.text;
    found.finish = result.finishReason;
    found.total_tokens = result.usage.totalTokens;
    found.tool_calls = result.toolCalls.map(called);
    return result;
  };
  const streamed = async (found, model, more = {}) => {
    const result = streamText({ model, prompt: HELLO, maxRetries: 0, onError() {}, ...more });
    found.text = "";
    found.chunks = 0;
    for await (const part of result.fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") {
        found.text += part.text;
        found.chunks += 1;
      }
    }
    found.identity = identity(await result.response);
    found.finish = await result.finishReason;
    found.total_tokens = (await result.usage).totalTokens;
    found.tool_calls = (await result.toolCalls).map(called);
  };
  const once = { maxRetries: 0 };

  return {
    whole: (found) => whole(found, provider(models.whole), once),
    streamed: (found) => streamed(found, provider(models.streamed)),
    tool_call: (found) => whole(found, provider(models.tool_call), { tools, ...once }),
    tool_call_streamed: (found) => streamed(found, provider(models.tool_call_streamed), { tools }),
    structured: async (found) => {
      const schema = z.object({ city: z.string(), inhabitants: z.number() });
      const output = Output.object({ schema, name: "city" });
      found.object = (await whole({}, provider(models.structured), { output, ...once })).output;
    },
    stranger: (found) => whole(found, stranger(models.stranger), once),
    missing: (found) => whole(found, provider(models.missing), once),
    refused: (found) => whole(found, provider(models.refused)),
    busy: (found) => whole(found, provider(models.busy), once),
    recovers: (found) => whole(found, provider(models.recovers)),
    halved: (found) => whole(found, provider(models.halved), once),
    cut: (found) => streamed(found, provider(models.cut)),
    unfinished: (found) => streamed(found, provider(models.unfinished)),
    failed_midway: (found) => streamed(found, provider(models.failed_midway)),
    embedded: async (found) => {
      const model = provider.embeddingModel(models.embedded);
      found.vectors = (await embedMany({ model, values: TEXTS, ...once })).embeddings;
    },
    responded: (found) => whole(found, responses(models.responded), once),
    responded_streamed: (found) => streamed(found, responses(models.responded_streamed)),
    responded_cut: (found) => streamed(found, responses(models.responded_cut)),
    left_streaming: async () => {
      const call = new AbortController();
      const model = provider(models.left_streaming);
      const { fullStream } = streamText({ model, prompt: HELLO, abortSignal: call.signal });
      for await (const part of fullStream) {
        if (part.type === "text-delta") call.abort();
      }
    },
    left_waiting: async (found) => {
      const call = new AbortController();
      leaving.then(() => call.abort());
      await whole(found, provider(models.left_waiting), { abortSignal: call.signal });
    },
  };
}

function called({ toolName, input }) {
  return { name: toolName, arguments: input };
}

await play(scenarios, describe);
