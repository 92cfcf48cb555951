// The same question elsewhere: as a line of the shell, as a curl command, as a call of OpenAI's SDK.

const quote = (text) => (/^[\w@%+=:,./*-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** The stages of a chain, as its text has them. */
export function steps(chain) {
  return (chain || "").split(/\|(?=(?:[^'"]*(?:'[^']*'|"[^"]*"))*[^'"]*$)/).map((step) => step.trim()).filter(Boolean);
}

/** The chain that a body asks for, its overrides in it. */
export function chainOf(body, recipes) {
  const fusion = body.fusion ?? {};
  const recipe = recipes.find((r) => r.name === fusion.recipe);
  const parts = steps(fusion.chain || recipe?.chain || "panel | judge | synth");
  const add = (name, options) => {
    const at = parts.findIndex((step) => step.split(" ")[0] === name);
    if (at >= 0) parts[at] = `${parts[at]} ${options}`;
  };
  if (fusion.panel) add("panel", fusion.panel.map((m) => `-m ${quote(m)}`).join(" "));
  if (fusion.samples) add("panel", `--samples ${fusion.samples}`);
  if (fusion.judge) add("judge", [fusion.judge].flat().map((m) => `-m ${quote(m)}`).join(" "));
  if (fusion.synth) add("synth", `-m ${quote(fusion.synth)}`);
  if (fusion.refine) add("synth", "--refine");
  if (fusion.guard) add("synth", "--guard");
  for (let layer = 1; layer < (fusion.layers ?? 1); layer += 1) parts.splice(1, 0, "panel --revise");
  return parts;
}

export function shellLine(body, recipes) {
  const chain = chainOf(body, recipes).map((step) => `fuse-${step}`);
  const recipe = body.fusion?.recipe;
  if (recipe) chain[0] = chain[0].replace(/^(\S+)/, `$1 -c ${quote(recipe)}`);
  const params = body.params && Object.keys(body.params).length ? { params: body.params } : {};
  const only = body.messages?.length === 1 && typeof body.messages[0].content === "string" && !Object.keys(params).length;
  const first = body.record
    ? "cat record.jsonl"
    : `printf '%s\\n' ${only ? quote(body.messages[0].content) : quote(JSON.stringify({ messages: body.messages, ...params }))}`;
  return [first, ...chain].join(" | ");
}

const asChat = (body) => {
  const { recipe, ...fusion } = body.fusion ?? {};
  const chat = { model: recipe ? `fusion/${recipe}` : "fusion", messages: body.messages, ...(body.params ?? {}) };
  return Object.keys(fusion).length ? { ...chat, fusion } : chat;
};

export function curl(body, origin, locked) {
  const data = body.record ? JSON.stringify({ ...body, stream: undefined, record: "…" }) : JSON.stringify(asChat(body));
  const key = locked ? ` -H "authorization: Bearer $FUSION_KEY"` : "";
  const path = body.record ? "/fuse" : "/v1/chat/completions";
  return `curl ${origin}${path} -H 'content-type: application/json'${key} -d ${quote(data)}`;
}

/** The words of a literal of Python. */
function python(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

export function sdk(body, origin, locked) {
  const { model, messages, fusion, ...params } = asChat(body);
  const more = Object.entries(params).map(([name, value]) => `, ${name}=${python(value)}`).join("");
  const extra = fusion ? `,\n    extra_body=${python({ fusion })}` : "";
  return [
    ...(locked ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${origin}/v1", api_key=${locked ? 'os.environ["FUSION_KEY"]' : '"any"'})`,
    "answer = client.chat.completions.create(",
    `    model=${python(model)}, messages=${python(messages)}${more}${extra},`,
    ")",
    "print(answer.choices[0].message.content)",
  ].join("\n");
}
