import type { LocalEngine } from "../engine/local/index.ts";
import { RandomStream } from "../engine/random.ts";
import type { Model } from "../engine/types.ts";
import { sequenceTree } from "../forest/build.ts";
import { crossEntropy } from "../method/losses.ts";
import { adam } from "../method/update.ts";
import { allowedNext, type Fn, G2, serialize, type Step, TAG_TOKENS } from "../tags/index.ts";

export const WORDS = ["a", "b", "c", "d", "?", "####", "1", "2", "3", " "];

/** A path of random functions that grammar G2 allows; its output states a number. */
function randomPath(random: RandomStream): Step[] {
  const steps: Step[] = [];
  while (steps.at(-1)?.fn !== "output") {
    const path = steps.map(({ fn }) => fn);
    const allowed = allowedNext(G2, path);
    // Paths stay short.
    const hurry = random.uniform() < 0.5 || steps.length > 4;
    const fn: Fn = hurry && allowed.includes("output") ? "output" : allowed[random.below(allowed.length)];
    const letters = Array.from({ length: 1 + random.below(3) }, () => WORDS[random.below(4)]).join("");
    steps.push({ fn, text: fn === "output" ? `#### ${1 + random.below(3)}` : letters });
  }
  return steps;
}

/** A tiny model with tags as tokens that has seen the grammar for some steps: it closes most of its blocks, and is sure of nothing. */
export async function taggedModel(engine: LocalEngine, steps = 60): Promise<Model> {
  const model = await engine.create({ base: "tiny", train: "full", vocabulary: WORDS, addTokens: TAG_TOKENS, seed: 1 });
  const { tokenizer, info } = model;
  const optimizer = { lr: 5e-3, betas: [0.9, 0.95] as [number, number], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 };
  for (let step = 0; step < steps; step++) {
    const trees = Array.from({ length: 16 }, (_, i) => {
      const random = new RandomStream(`demonstration ${step} ${i}`);
      const target = tokenizer.encode(serialize(randomPath(random), "tokens"), { added: true });
      const response = Int32Array.from([...target, info.eosIds[0]]);
      const prompt = tokenizer.encode(`${WORDS[random.below(4)]}${WORDS[random.below(4)]}?`);
      const tree = sequenceTree({ id: `${i}`, problem: `${i}` }, prompt, response);
      tree.segments[1].fields.weights = new Float32Array(response.length).fill(1 / 16 / response.length);
      return tree;
    });
    await model.forwardBackward(trees, crossEntropy());
    await model.optimStep(adam(optimizer, optimizer.lr));
  }
  return model;
}
