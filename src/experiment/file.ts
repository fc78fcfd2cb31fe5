import { readFileSync } from "node:fs";
import { basename, dirname, extname, resolve } from "node:path";
import { z } from "zod";
import { nearest, UserError } from "../errors.ts";
import { evaluationRounds, roundOptions } from "../eval/rounds.ts";
import {
  evaluationSearch,
  isNamedValue,
  PROMPTED_TEMPERATURE,
  searchOptions,
  type SearchOptions,
} from "../eval/searched.ts";
import { parseToml } from "../run/recipe.ts";
import { parseStrict } from "../strict.ts";

export const BUDGETS = ["generatedTokens", "engineSeconds"] as const;
export type BudgetName = (typeof BUDGETS)[number];

const overrides = z.record(z.string(), z.unknown());
const seeds = z.array(z.int().nonnegative()).min(1, "expected at least one seed");
const whole = z.int().positive();

const split = z.enum(["train", "dev", "test"]);
/** One of the problems' other formats. */
const format = z.string().min(1).optional();
const temperature = z.number().nonnegative().optional();
const ONE_ANSWER = "at temperature 0 all samples of a problem are the same; leave `n` out";

/** 0 for one sample, 1 for several. */
const defaultTemperature = (n: number): number => (n === 1 ? 0 : 1);

const evaluation = (of: "dev" | "test") =>
  z
    .strictObject({
      split: split.default(of),
      limit: whole.optional(),
      n: whole.default(1),
      temperature,
      maxTokens: whole.default(512),
      format,
      ...roundOptions,
      seed: z.int().nonnegative().default(0),
    })
    .transform((o) => ({ ...o, temperature: o.temperature ?? defaultTemperature(o.n) }))
    .refine((o) => o.n === 1 || o.temperature > 0, ONE_ANSWER)
    .prefault({});

/** How questions are asked. */
const evaluationKeys = { format, ...roundOptions };

const name = z.string().regex(/^[A-Za-z0-9][\w.-]*$/, "expected letters, digits, `.`, `_` and `-`: it names a folder");

/** A further evaluation of final runs: descriptive, whatever it shows. What it leaves out is as in `test` and the arm's `evaluate`. */
const alsoSchema = z
  .strictObject({
    name: z.string().min(1),
    /** All arms when absent. */
    arms: z.array(z.string()).min(1).optional(),
    /** The weights at the last budget, or those with which the last stage began. */
    at: z.enum(["end", "start"]).default("end"),
    limit: whole.optional(),
    n: whole.optional(),
    temperature,
    maxTokens: whole.optional(),
    seed: z.int().nonnegative().optional(),
    ...searchOptions,
    /** Rollouts of a search for each problem, whose vote answers it. */
    search: z.int().min(2).optional(),
    /** The majority (of a search, the vote) of as many samples as these generated tokens a problem allow. */
    tokens: whole.optional(),
    /** "default": the problems' own. */
    ...evaluationKeys,
    /** 0: in one go, although the arm is asked in rounds. */
    rounds: z.int().nonnegative().optional(),
  })
  .refine((o) => o.n === undefined || o.n === 1 || o.temperature !== 0, ONE_ANSWER)
  .refine((o) => o.search === undefined || (o.n === undefined && (o.rounds ?? 0) === 0), {
    path: ["search"],
    error: "a search draws its rollouts in place of samples and rounds; leave n and rounds out",
  })
  .refine((o) => o.tokens === undefined || (o.n ?? o.search ?? 1) > 1, {
    path: ["tokens"],
    error: "say how many samples there may be at most, with n or search",
  });

const armSchema = z.strictObject({
  name,
  /** Arms of one group answer the same questions, and are compared with each other alone. */
  group: name.optional(),
  /** Some of the final seeds; all when absent. */
  seeds: seeds.min(2, "an interval over seeds needs two at least").optional(),
  /** Instead of the experiment's recipe. */
  recipe: z.string().min(1).optional(),
  /** Added after the recipe's stages. */
  stage: z.array(overrides).default([]),
  set: overrides.default({}),
  /** A step of this arm is longer or shorter than one of the others. */
  curve: z.strictObject({ every: whole }).optional(),
  /** Its dev, test and curve are asked so, where the arm's way of answering differs from the others'. */
  evaluate: z.strictObject({ maxTokens: whole.optional(), ...evaluationKeys }).optional(),
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
  also: z.array(alsoSchema).default([]),
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
export type EvaluationSpec = Parsed["dev"] & SearchOptions;
export type ProfileSpec = NonNullable<Parsed["profile"]>;
type AlsoSpec = Parsed["also"][number];
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
  const every = parsed.arm.find(({ curve }) => curve !== undefined);
  if (every !== undefined && parsed.curve === undefined) {
    refuse(
      `arm "${every.name}" has a \`curve\`, and the experiment has none; add curve = { every = ... } for all arms`,
    );
  }
  for (const { name, evaluate } of parsed.arm) {
    for (const asked of [parsed.dev, parsed.test]) {
      evaluationRounds({ ...asked, ...evaluate }, (key) => `${source}: arm "${name}": \`${key}\``);
    }
  }
  parsed.also.forEach((one, i) => {
    const { name, arms } = one;
    if (parsed.also.slice(0, i).some((other) => other.name === name)) refuse(`two of \`also\` are named "${name}"`);
    const unknown = arms?.find((arm) => !names.includes(arm));
    if (unknown !== undefined)
      refuse(`\`also.${i + 1}.arms\`: there is no arm "${unknown}" (arms: ${names.join(", ")})`);
    for (const arm of arms ?? names) {
      const spec = alsoSpec({ ...parsed, baseDir }, one, arm);
      const key = (name: string) => `${source}: \`also.${i + 1}.${name}\``;
      evaluationSearch(spec, key);
      evaluationRounds(spec, key);
    }
  });
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
    const [ofA, ofB] = [a, b].map((name) => parsed.arm.find((one) => one.name === name));
    if (ofA?.group !== ofB?.group) {
      refuse(
        `\`contrast.${i + 1}\` compares arms of two groups, ${ofA?.group ?? "none"} and ${ofB?.group ?? "none"}, which answer other questions`,
      );
    }
    const fewer = [ofA, ofB].find((one) => one?.seeds !== undefined);
    if (fewer !== undefined) {
      refuse(
        `\`contrast.${i + 1}\` names arm "${fewer.name}", which has \`seeds\` of its own; a primary contrast is over all of \`final.seeds\``,
      );
    }
    if (parsed.budgets[budget] === undefined) {
      refuse(`\`contrast.${i + 1}.budget\` is ${budget}, and \`budgets\` has none of that name`);
    }
    const same = (c: Contrast) => c.budget === budget && [c.a, c.b].sort().join() === [a, b].sort().join();
    if (parsed.contrast.slice(0, i).some(same))
      refuse(`\`contrast.${i + 1}\` names the arms and budget of an earlier one`);
  });
  return { ...parsed, source, baseDir, name: basename(source, extname(source)) };
}

/** The final seeds of an arm. */
export const seedsOf = ({ arm, final }: ExperimentFile, name: string | undefined): number[] =>
  arm.find((one) => one.name === name)?.seeds ?? final.seeds;

/** The groups of arms in the file's order; undefined stands for the arms that are in none. */
export const groupsOf = ({ arm }: ExperimentFile): (string | undefined)[] => [
  ...new Set(arm.map(({ group }) => group)),
];

/** The group of an arm. */
export const groupOf = ({ arm }: ExperimentFile, name: string): string | undefined =>
  arm.find((one) => one.name === name)?.group;

/** How an arm is asked on dev or on test. */
export function askedOf({ arm }: Parsed, name: string | undefined, spec: EvaluationSpec): EvaluationSpec {
  return { ...spec, ...arm.find((one) => one.name === name)?.evaluate };
}

export interface Also {
  name: string;
  at: AlsoSpec["at"];
  spec: EvaluationSpec;
  /** Generated tokens a problem that the answer by majority may take. */
  tokens?: number;
}

/** The further evaluations of an arm. */
export function alsoOf(experiment: ExperimentFile, arm: string): Also[] {
  const asked = experiment.also.filter(({ arms }) => arms === undefined || arms.includes(arm));
  return asked.map((one) => {
    const { name, at, tokens } = one;
    return { name, at, spec: alsoSpec(experiment, one, arm), ...(tokens !== undefined && { tokens }) };
  });
}

/** How a further evaluation asks an arm. */
function alsoSpec(experiment: Parsed & { baseDir: string }, one: AlsoSpec, arm: string): EvaluationSpec {
  const { name: _name, at: _at, tokens: _tokens, arms: _arms, temperature, ...own } = one;
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined));
  const spec: EvaluationSpec = { ...askedOf(experiment, arm, experiment.test), ...given };
  // In one go there is nothing to say about rounds.
  if (own.rounds === 0 || own.search !== undefined)
    for (const key of ["rounds", "adaptive", "style", "progressTokens"] as const) delete spec[key];
  if (spec.format === "default") delete spec.format;
  if (own.search !== undefined) spec.n = own.search;
  spec.temperature = temperature ?? (own.searchBy === "prompts" ? PROMPTED_TEMPERATURE : defaultTemperature(spec.n));
  const { searchValue } = own;
  if (searchValue !== undefined && !isNamedValue(searchValue))
    spec.searchValue = resolve(experiment.baseDir, searchValue);
  return spec;
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
  const lists = { tuning: tuning?.seeds ?? [], final: final.seeds };
  for (const [name, list] of [
    ...Object.entries(lists),
    ...arm.map((one) => [`arm "${one.name}"`, one.seeds ?? []] as const),
  ]) {
    const twice = list.find((seed, i) => list.indexOf(seed) !== i);
    if (twice !== undefined) refuse(`\`${name}.seeds\` has seed ${twice} twice`);
  }
  for (const { name, seeds = [] } of arm) {
    const other = seeds.find((seed) => !final.seeds.includes(seed));
    if (other !== undefined) refuse(`arm "${name}": seed ${other} is none of \`final.seeds\``);
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
