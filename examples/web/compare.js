/**
 * Runs an exported model on what rifft sampled from it, in Node as in a browser.
 * @param transformers the library, its `env` set so that `name` is found
 * @param cases what rifft gave at temperature 0, of at most `maxTokens` tokens: prompt, tokens, logprobs (at temperature 1)
 * @param texts with the ids that rifft gives them
 */
export async function compare({ AutoModelForCausalLM, AutoTokenizer, Tensor }, name, { cases, texts, maxTokens }) {
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const encode = (text) => Array.from(tokenizer(text, { add_special_tokens: false }).input_ids.data, Number);
  const otherIds = texts.filter(({ text, ids }) => encode(text).join() !== ids.join()).length;
  const model = await AutoModelForCausalLM.from_pretrained(name);
  const row = (ids) => new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
  let [tokens, otherTokens, largest] = [0, 0, 0];
  for (const sample of cases) {
    const prompt = encode(sample.prompt);
    const ones = (length) => row(new Array(length).fill(1));
    const settings = { max_new_tokens: maxTokens, do_sample: false };
    const generated = await model.generate({ inputs: row(prompt), attention_mask: ones(prompt.length), ...settings });
    const chosen = Array.from(generated.data, Number).slice(prompt.length);
    otherTokens += sample.tokens.filter((id, i) => id !== chosen[i]).length;
    const ids = [...prompt, ...sample.tokens];
    const { logits } = await model({ input_ids: row(ids), attention_mask: ones(ids.length) });
    const vocab = logits.dims[2];
    sample.tokens.forEach((id, i) => {
      const at = (prompt.length + i - 1) * vocab;
      const values = logits.data.subarray(at, at + vocab);
      const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
      const sum = values.reduce((total, value) => total + Math.exp(value - top), 0);
      largest = Math.max(largest, Math.abs(values[id] - top - Math.log(sum) - sample.logprobs[i]));
    });
    tokens += sample.tokens.length;
  }
  return { texts: texts.length, otherIds, prompts: cases.length, tokens, otherTokens, largest };
}
