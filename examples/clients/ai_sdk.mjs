// Vercel's AI SDK: `npm install ai @ai-sdk/openai`. Two turns by the Responses API, the second of which names items of
// the first; a stream; and the same by Chat Completions.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool, jsonSchema } from "ai";

const openai = createOpenAI({
  baseURL: (process.env.FUSION_SERVER ?? "http://127.0.0.1:8383") + "/v1",
  apiKey: process.env.FUSION_SERVER_KEY ?? "none",
});
const messages = [{ role: "user", content: "What is the capital of Australia?" }];
const capital = tool({
  description: "Return the capital of a country.",
  inputSchema: jsonSchema({ type: "object", properties: { country: { type: "string" } }, required: ["country"] }),
  execute: async ({ country }) => `The capital of ${country} is Canberra.`,
});
const asked = { model: openai("fusion"), tools: { capital }, stopWhen: stepCountIs(5) };

const first = await generateText({ ...asked, messages });
console.log(first.text);

const next = [...messages, ...first.response.messages, { role: "user", content: "Are you sure?" }];
console.log((await generateText({ ...asked, messages: next })).text);

console.log(await streamText({ model: openai("fusion"), messages }).text);
console.log((await generateText({ model: openai.chat("fusion"), messages })).text);
