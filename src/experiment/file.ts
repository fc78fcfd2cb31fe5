import { readFileSync } from "node:fs";
import { basename, dirname, extname, resolve } from "node:path";
import { z } from "zod";
import { nearest, UserError } from "../errors.ts";
import { parseToml } from "../run/recipe.ts";
import { parseStrict } from "../strict.ts";

export const BUDGETS = ["generatedTokens", "engineSeconds"] as const;
export type BudgetName = (typeof BUDGETS)[number];

const overrides = z.record(z.string(), z.unknown());
const seeds = z.array(z.int().nonnegative()).min(1, "expected at least one seed");
const whole = z.int().positive();

const evaluation = (split: "dev" | "test") =>
  z
    .strictObject({
      split: z.enum(["train", "dev", "test"]).default(split),
      limit: whole.optional(),
      n: whole.default(1),
      temperature: z.number().nonnegative().optional(),
      maxTokens: whole.default(512),
      seed: z.int().nonnegative().default(0),
    })
    .transform((o) => ({ ...o, temperature: o.temperature ?? (o.n === 1 ? 0 : 1) }))
    .refine(
      (o) => o.n === 1 || o.temperature > 0,
      "at temperature 0 all samples of a problem are the same; leave `n` out",
    )
    .prefault({});

const armSchema = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9][\w.-]*$/, "expected letters, digits, `.`, `_` and `-`: it names a folder"),
  /** Instead of the experiment's recipe. */
  recipe: z.string().min(1).optional(),
  /** Added after the recipe's stages. */
  stage: z.array(overrides).default([]),
  set: overrides.default({}),
  /** Trains on those training problems whose solve rate in the experiment's profile satisfies it. */
  where: z.string().min(1).optional(),
  settings: z.array(overrides).min(1, "expected at least one setting, which may be empty: {}").default([{}]),
});

const fileSchema = z.strictObject({
  title: z.string().min(1),
  recipe: z.string().min(1).optional(),
  set: overrides.default({}),
  budgets: z
    .strictObject({ generatedTokens: whole.optional(), engineSeconds: z.number().positive().optional() })
    .refine((o) => BUDGETS.some((name) => o[name] !== undefined), "expected generatedTokens, engineSeconds or both"),
  tuning: z.strictObject({ seeds, budget: z.enum(BUDGETS).optional() }).optional(),
  final: z.strictObject({
    seeds: seeds.min(
      2,
      "one seed says nothing about a method: expected six seeds or more (with two to five no claim is made)",
    ),
  }),
  dev: evaluation("dev"),
  test: evaluation("test"),
  /** How the policy with which arms with `where` begin answers the training problems, once a seed. */
  profile: z
    .strictObject({
      n: whole.default(4),
      limit: whole.optional(),
      temperature: z.number().positive().default(1),
      maxTokens: whole.default(512),
    })
    .optional(),
  /** Evaluations inside the runs, for the learning curves; on dev's split. */
  curve: z.strictObject({ every: whole, limit: whole.default(200), maxTokens: whole.optional() }).optional(),
  arm: z.array(armSchema).min(2, "an experiment compares two arms or more"),
  contrast: z
    .array(z.strictObject({ a: z.string(), b: z.string(), budget: z.enum(BUDGETS) }))
    .min(1, "name the primary contrasts before the run, as [[contrast]] with a, b and budget"),
  /** What is assumed where the tuning runs cannot tell: standard deviation over seeds of a difference, and the difference looked for. */
  assume: z
    .strictObject({ deviation: z.number().positive().optional(), difference: z.number().positive().optional() })
    .prefault({}),
  /** How many cells run at once where seconds are no budget. */
  parallel: whole.optional(),
  /** The page is written there too. */
  out: z.string().min(1).optional(),
});

type Parsed = z.output<typeof fileSchema>;
export type EvaluationSpec = Parsed["dev"];
export type ProfileSpec = NonNullable<Parsed["profile"]>;
export type ArmSpec = Parsed["arm"][number];
export type Contrast = Parsed["contrast"][number];

/** An experiment as its file has it, checked. */
export interface ExperimentFile extends Parsed {
  /** As it was named. */
  source: string;
  /** What relative paths are relative to. */
  baseDir: string;
  /** The file's name without its ending. */
  name: string;
}

/** Reads an experiment file. Throws a UserError that names the file and the line or key. */
export function readExperiment(file: string): ExperimentFile {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    throw new UserError(`cannot read the experiment ${file}: give the path of a TOML file`);
  }
  return parseExperiment(text, { source: file, baseDir: dirname(resolve(file)) });
}

/** Checks the text of an experiment file; relative paths in it resolve against the absolute `baseDir`. */
export function parseExperiment(
  text: string,
  { source, baseDir }: { source: string; baseDir: string },
): ExperimentFile {
  const parsed = parseStrict(fileSchema, parseToml(text, source), source);
  const refuse = (what: string): never => {
    throw new UserError(`${source}: ${what}`);
  };
  const names = parsed.arm.map(({ name }) => name);
  for (const name of names)
    if (names.filter((other) => other === name).length > 1) refuse(`two arms are named "${name}"`);
  for (const { name, recipe } of parsed.arm) {
    if (recipe === undefined && parsed.recipe === undefined) {
      refuse(`arm "${name}" has no \`recipe\`, and the experiment has none for all arms; name one of them`);
    }
  }
  checkSettings(parsed.arm, refuse);
  const filtered = parsed.arm.find(({ where }) => where !== undefined);
  if (filtered !== undefined && parsed.profile === undefined) {
    refuse(
      `arm "${filtered.name}" has \`where\`, and there is no [profile] to choose training problems by; add one, such as profile = { n = 4, limit = 200 }`,
    );
  }
  if (filtered === undefined && parsed.profile !== undefined) {
    refuse(
      'there is a [profile], and no arm has a `where` to use it; give one, such as where = "0.1 < solved < 0.9", or leave it out',
    );
  }
  checkSeeds(parsed, refuse);
  if (parsed.tuning?.budget !== undefined && parsed.budgets[parsed.tuning.budget] === undefined) {
    refuse(`\`tuning.budget\` is ${parsed.tuning.budget}, and \`budgets\` has none of that name`);
  }
  parsed.contrast.forEach(({ a, b, budget }, i) => {
    for (const [key, name] of Object.entries({ a, b })) {
      if (names.includes(name)) continue;
      const near = nearest(name, names);
      const hint = near === undefined ? `arms: ${names.join(", ")}` : `did you mean "${near}"?`;
      refuse(`\`contrast.${i + 1}.${key}\`: there is no arm "${name}" (${hint})`);
    }
    if (a === b) refuse(`\`contrast.${i + 1}\` compares "${a}" with itself`);
    if (parsed.budgets[budget] === undefined) {
      refuse(`\`contrast.${i + 1}.budget\` is ${budget}, and \`budgets\` has none of that name`);
    }
    const same = (c: Contrast) => c.budget === budget && [c.a, c.b].sort().join() === [a, b].sort().join();
    if (parsed.contrast.slice(0, i).some(same))
      refuse(`\`contrast.${i + 1}\` names the arms and budget of an earlier one`);
  });
  return { ...parsed, source, baseDir, name: basename(source, extname(source)) };
}

/** An arm tuned with more settings than another would be favoured. */
function checkSettings(arms: ArmSpec[], refuse: (what: string) => never): void {
  const count = arms[0].settings.length;
  const other = arms.find(({ settings }) => settings.length !== count);
  if (other === undefined) return;
  const [more, fewer] = other.settings.length > count ? [other, arms[0]] : [arms[0], other];
  refuse(
    `arm "${more.name}" is tuned with ${more.settings.length} settings and arm "${fewer.name}" with ${fewer.settings.length}; give every arm the same number`,
  );
}

function checkSeeds({ tuning, final, arm }: Parsed, refuse: (what: string) => never): void {
  for (const [name, list] of Object.entries({ tuning: tuning?.seeds ?? [], final: final.seeds })) {
    const twice = list.find((seed, i) => list.indexOf(seed) !== i);
    if (twice !== undefined) refuse(`\`${name}.seeds\` has seed ${twice} twice`);
  }
  const both = tuning?.seeds.find((seed) => final.seeds.includes(seed));
  if (both !== undefined) {
    refuse(
      `seed ${both} is one of \`tuning.seeds\` and of \`final.seeds\`; what was chosen with a seed is not tested with it`,
    );
  }
  if (tuning === undefined && arm[0].settings.length > 1) {
    refuse(
      `every arm has ${arm[0].settings.length} settings and there is no \`tuning\` to choose with; add tuning = { seeds = [...] }`,
    );
  }
}
