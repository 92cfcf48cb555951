// The Anthropic SDK for JavaScript: `npm install @anthropic-ai/sdk`. An answer, the same as it is written, and a tool.
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.env.FUSION_SERVER ?? "http://127.0.0.1:8383",
  apiKey: process.env.FUSION_SERVER_KEY ?? "none",
});
const messages = [{ role: "user", content: "What is the capital of Australia?" }];
const asked = { model: "fusion", max_tokens: 1000, messages };
const textOf = (message) => message.content.find((block) => block.type === "text").text;

console.log(textOf(await client.messages.create(asked)));
console.log(await client.messages.stream(asked).finalText());

const capital = {
  type: "custom",
  name: "capital",
  input_schema: { type: "object", properties: { country: { type: "string" } }, required: ["country"] },
  parse: (input) => input,
  run: ({ country }) => `The capital of ${country} is Canberra.`,
};
console.log(textOf(await client.beta.messages.toolRunner({ ...asked, tools: [capital] })));
