import { afterAll, expect, test } from "vitest";
import { fixture, randomTokens } from "../../../test/local.ts";
import { loadModelFiles } from "../../model/load.ts";
import { Runtime } from "../../runtime/index.ts";
import { DecodeSessions } from "./decode-weights.ts";
import { LocalDecoder } from "./decoder.ts";
import { LayerPass } from "./pass.ts";
import { Sampler } from "./sampler.ts";
import { BaseWeights } from "./weights.ts";

const release: (() => void)[] = [];
afterAll(() => release.forEach((each) => each()));

test("slots keep to their budget, however many rows wait and however long they may become", async () => {
  const files = await loadModelFiles(fixture("llama"));
  const { config } = files;
  const runtime = Runtime.open();
  const pass = new LayerPass(runtime, config, "none", 0);
  const base = new BaseWeights(files, false);
  const sessions = await DecodeSessions.create(runtime, config, base, 0);
  const perToken = 8 * config.kvHeads * config.headDim * config.layers;
  const budget = { maxRows: 16, slotBytes: 5 * 128 * perToken, prefixBytes: 0 };
  const decoder = new LocalDecoder(config, pass, budget, 0);
  release.push(
    () => decoder.release(),
    () => sessions.release(),
    () => pass.release(),
  );
  decoder.use({ key: "base", view: base, sessions, adapters: null });
  const sampler = new Sampler(files.tokenizer, config.eosIds);
  const sampled = sampler.add([
    { prefix: randomTokens("p", 9), n: 12, maxTokens: 100, temperature: 1, stop: [], key: "k" },
  ]);
  await sampler.run(decoder);
  expect(await sampled).toHaveLength(12);
  expect(decoder.bytes).toBeLessThanOrEqual(budget.slotBytes);
});
