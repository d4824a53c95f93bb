// The official SDK for Node.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { HELLO, TEXTS, WEATHER, play } from "./scenarios.mjs";

const messages = [{ role: "user", content: HELLO }];
const tools = [{ type: "function", function: WEATHER }];

function describe(error) {
  return {
    class: error.constructor.name,
    status: error.status,
    code: error.code,
    retry_after: error.headers?.get("retry-after"),
  };
}

function identity(response) {
  const read = (name) => response.headers.get(`x-model-ledger-${name}`);
  return { model: read("model"), version: read("version"), position: read("position") };
}

function scenarios({ base_url: baseURL, token: apiKey, models }, leaving) {
  const patient = new OpenAI({ baseURL, apiKey });
  const client = patient.withOptions({ maxRetries: 0 });
  const stranger = client.withOptions({ apiKey: "mlk_unknown" });

  const whole = async (found, by, model, more = {}) => {
    const asked = by.chat.completions.create({ model, messages, ...more });
    const { data, response } = await asked.withResponse();
    const [choice] = data.choices;
    found.identity = identity(response);
    found.text = choice.message.content;
    found.finish = choice.finish_reason;
    found.total_tokens = data.usage?.total_tokens;
    found.tool_calls = choice.message.tool_calls?.map((call) => called(call.function));
  };
  const streamed = async (found, model, more = {}) => {
    const asked = client.chat.completions.create({ model, messages, stream: true, ...more });
    const { data, response } = await asked.withResponse();
    found.identity = identity(response);
    found.text = "";
    found.chunks = 0;
    const calls = [];
    for await (const chunk of data) {
      found.total_tokens = chunk.usage?.total_tokens ?? found.total_tokens;
      const [choice] = chunk.choices;
      if (!choice) continue;
      found.text += choice.delta.content ?? "";
      found.chunks += choice.delta.content ? 1 : 0;
      found.finish = choice.finish_reason ?? found.finish;
      for (const { index, function: piece } of choice.delta.tool_calls ?? []) {
        calls[index] ??= { name: piece.name, arguments: "" };
        calls[index].arguments += piece.arguments;
      }
    }
    found.tool_calls = calls.map(called);
  };

  const respond = async (found, model) => {
    const stream = await client.responses.create({ model, input: HELLO, stream: true });
    found.text = "";
    found.chunks = 0;
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") {
        found.text += event.delta;
        found.chunks += 1;
      }
      if (event.type === "response.completed") {
        found.finish = event.response.status;
        found.total_tokens = event.response.usage.total_tokens;
      }
    }
  };

  return {
    listed: async (found) => {
      const page = await client.models.list();
      found.models = page.data.map((model) => model.id);
      found.text = (await client.models.retrieve(models.listed)).id;
    },
    whole: (found) => whole(found, client, models.whole),
    streamed: (found) => streamed(found, models.streamed, { stream_options: { include_usage: true } }),
    tool_call: (found) => whole(found, client, models.tool_call, { tools }),
    tool_call_streamed: (found) => streamed(found, models.tool_call_streamed, { tools }),
    structured: async (found) => {
      const city = z.object({ city: z.string(), inhabitants: z.number() });
      const completion = await client.chat.completions.parse({
        model: models.structured,
        messages,
        response_format: zodResponseFormat(city, "city"),
      });
      found.object = completion.choices[0].message.parsed;
    },
    stranger: (found) => whole(found, stranger, models.stranger),
    missing: (found) => whole(found, client, models.missing),
    refused: (found) => whole(found, patient, models.refused),
    provider_auth: (found) => whole(found, patient, models.provider_auth),
    busy: (found) => whole(found, client, models.busy),
    recovers: (found) => whole(found, patient, models.recovers),
    halved: (found) => whole(found, client, models.halved),
    cut: (found) => streamed(found, models.cut),
    unfinished: (found) => streamed(found, models.unfinished),
    failed_midway: (found) => streamed(found, models.failed_midway),
    embedded: async (found) => {
      const { data } = await client.embeddings.create({ model: models.embedded, input: TEXTS });
      found.vectors = data.map((each) => [...each.embedding]);
    },
    responded: async (found) => {
      const response = await client.responses.create({ model: models.responded, input: HELLO });
      found.text = response.output_text;
      found.total_tokens = response.usage.total_tokens;
    },
    responded_streamed: (found) => respond(found, models.responded_streamed),
    responded_cut: (found) => respond(found, models.responded_cut),
    left_streaming: async () => {
      const stream = await client.chat.completions.create({
        model: models.left_streaming,
        messages,
        stream: true,
      });
      for await (const _ of stream) break;
    },
    left_waiting: async () => {
      const call = new AbortController();
      leaving.then(() => call.abort());
      const { signal } = call;
      await client.chat.completions.create({ model: models.left_waiting, messages }, { signal });
    },
  };
}

function called({ name, arguments: text }) {
  return { name, arguments: JSON.parse(text) };
}

await play(scenarios, describe);
