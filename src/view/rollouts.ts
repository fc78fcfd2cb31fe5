import { readdirSync, readFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { decodeTree } from "../forest/json.ts";
import type { Segment, Tree } from "../forest/types.ts";
import { pathTo } from "../forest/walk.ts";
import type { AddedSegment, AddedTree } from "./builder.ts";

/** The samples of one step of a run. */
export interface StepRollouts {
  stage: string;
  step: number;
  trees: Tree[];
  /** The text of each segment, as the run wrote it: [tree][segment]. */
  texts: string[][];
}

/** The samples that a run has written, in the order of its stages and steps. `steps`: of these alone. */
export function readRollouts(dir: string, note: (text: string) => void, steps?: [number, number]): StepRollouts[] {
  const root = join(dir, "rollouts");
  if (!existsSync(root)) {
    note("rollouts/ is missing");
    return [];
  }
  const stages = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const position = (name: string) => Number.parseInt(name, 10) || 0;
  return stages
    .map(({ name }) => name)
    .sort((a, b) => position(a) - position(b) || (a < b ? -1 : 1))
    .flatMap((stage) =>
      readdirSync(join(root, stage))
        .flatMap((file) => (/^\d+\.jsonl$/.test(file) ? [{ file, step: Number.parseInt(file, 10) }] : []))
        .filter(({ step }) => steps === undefined || (step >= steps[0] && step <= steps[1]))
        .sort((a, b) => a.step - b.step)
        .map(({ file, step }) => ({ stage, step, ...readTrees(join(root, stage, file), `${stage}/${file}`, note) })),
    );
}

const textsSchema = z.object({ segments: z.array(z.object({ text: z.string().default("") })) });

function readTrees(path: string, name: string, note: (text: string) => void): Pick<StepRollouts, "trees" | "texts"> {
  const lines = readFileSync(path, "utf8").split("\n");
  const trees: Tree[] = [];
  const texts: string[][] = [];
  lines.forEach((line, i) => {
    if (line === "") return;
    try {
      trees.push(decodeTree(line, `${name}:${i + 1}`));
      texts.push(textsSchema.parse(JSON.parse(line)).segments.map(({ text }) => text));
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      if (i === lines.length - 1) note(`${name}: its last line was cut off and is left out`);
      else note(`${error.message}: left out`);
    }
  });
  return { trees, texts };
}

/** A tree as the page shows it. `judge` tells what is known of a path by its last segment. */
export function shownTree(
  tree: Tree,
  texts: string[],
  judge: (path: Segment[]) => Pick<AddedSegment, "strict" | "flexible" | "error">,
): AddedTree {
  const parents = new Set(tree.segments.map(({ parent }) => parent));
  return {
    id: tree.id,
    problem: tree.problem,
    ...(tree.group === undefined ? {} : { group: tree.group }),
    ...(tree.cause === undefined ? {} : { cause: tree.cause }),
    segments: tree.segments.map(({ parent, source, tokens, logprobs, fields, temperature, outcome, stop }, s) => ({
      parent,
      source,
      tokens,
      text: texts[s] ?? "",
      series: { ...(logprobs === undefined ? {} : { logprobs }), ...fields },
      temperature,
      stop,
      outcome,
      ...(parent < 0 || parents.has(s) ? {} : judge(pathTo(tree, s).map((i) => tree.segments[i]))),
    })),
  };
}
