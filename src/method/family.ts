import { z } from "zod";
import { NORMALIZATIONS } from "./advantages.ts";
import { type Contradiction, refuse } from "./contradictions.ts";
import { BASELINES, CLIPS, KLS, RATIOS, SCALES } from "./parts.ts";
import { drawsWhole, TRUNCATED } from "./sampling.ts";
import { optimizerSettings } from "./update.ts";

/** The parts that make a member of the family, as its paper has them. */
export interface Member {
  paper: string;
  baseline: (typeof BASELINES)[number];
  scale: (typeof SCALES)[number];
  ratio: (typeof RATIOS)[number];
  clip: (typeof CLIPS)[number];
  clipLow?: number;
  clipHigh?: number;
  normalize: (typeof NORMALIZATIONS)[number];
  kl: (typeof KLS)[number];
  beta: number;
  dropFlatGroups: boolean;
  refills: number;
  overlongPenalty: number;
  minibatches: number;
}

/** What is trained on as it was sampled, in one update. */
const plain = { dropFlatGroups: false, refills: 0, overlongPenalty: 0, minibatches: 1 };

/** The members by the names under which a recipe has them: the defaults of their settings, and docs/methods/grpo.md's table. */
// prettier-ignore
export const FAMILY = {
  "grpo":        { ...plain, paper: "2402.03300", baseline: "group",         scale: "group", ratio: "token",    clip: "surrogate", clipLow: 0.2,  clipHigh: 0.2,  normalize: "token",      kl: "k3",     beta: 0 },
  "dr-grpo":     { ...plain, paper: "2503.20783", baseline: "group",         scale: "none",  ratio: "token",    clip: "surrogate", clipLow: 0.2,  clipHigh: 0.2,  normalize: "max-tokens", kl: "k3",     beta: 0 },
  "dapo":        { ...plain, paper: "2503.14476", baseline: "group",         scale: "group", ratio: "token",    clip: "surrogate", clipLow: 0.2,  clipHigh: 0.28, normalize: "token",      kl: "k3",     beta: 0,    dropFlatGroups: true, refills: 10, overlongPenalty: 0.5 },
  "gspo":        { ...plain, paper: "2507.18071", baseline: "group",         scale: "group", ratio: "sequence", clip: "surrogate", clipLow: 3e-4, clipHigh: 4e-4, normalize: "sequence",   kl: "k3",     beta: 0,    minibatches: 4 },
  "cispo":       { ...plain, paper: "2506.13585", baseline: "group",         scale: "group", ratio: "token",    clip: "weight",    clipLow: 1,    clipHigh: 4,    normalize: "token",      kl: "k3",     beta: 0,    dropFlatGroups: true, refills: 10, overlongPenalty: 0.5 },
  "rloo":        { ...plain, paper: "2402.14740", baseline: "leave-one-out", scale: "none",  ratio: "token",    clip: "none",                                      normalize: "sum",        kl: "reward", beta: 0 },
  "reinforce++": { ...plain, paper: "2501.03262", baseline: "batch",         scale: "batch", ratio: "token",    clip: "surrogate", clipLow: 0.2,  clipHigh: 0.2,  normalize: "token",      kl: "return", beta: 0.01 },
  "reinforce":   { ...plain, paper: "Williams 1992", baseline: "running",    scale: "none",  ratio: "token",    clip: "none",                                      normalize: "sum",        kl: "reward", beta: 0 },
} satisfies Record<string, Member>;

/** The family in lines for `--help`: a member's name, its parts, where it was published. */
export function familyLines(): string[] {
  const rows = Object.entries<Member>(FAMILY).map(([name, m]) => [
    name,
    `baseline ${m.baseline}`,
    `scale ${m.scale}`,
    `ratio ${m.ratio}`,
    m.clip === "none" ? "clip none" : `clip ${m.clip} ${m.clipLow} ${m.clipHigh}`,
    `normalize ${m.normalize}`,
    m.paper,
  ]);
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join("  ")
      .trimEnd(),
  );
}

/** The settings of a member: the same keys for all, with the member's parts as defaults; the rest is as in MOTIF's vanilla GRPO (arXiv 2507.02851). */
export function groupSettings(member: Member) {
  return z
    .strictObject({
      /** Problems a step. */
      prompts: z.int().positive().default(8),
      /** G: samples a problem. */
      samples: z.int().positive().default(8),
      temperature: z.number().positive().default(1),
      maxTokens: z.int().positive().default(1024),
      topP: z.number().positive().max(1).default(1),
      topK: z.int().min(0).default(0),
      /** Trains on top-p or top-k samples, whose log-probs are not those of the distribution they were drawn from. */
      allowTruncated: z.boolean().default(false),
      /** What a reward is compared with. */
      baseline: z.enum(BASELINES).default(member.baseline),
      /** Whose standard deviation an advantage is divided by. */
      scale: z.enum(SCALES).default(member.scale),
      /** What has a ratio of its own: a token, or a whole response. */
      ratio: z.enum(RATIOS).default(member.ratio),
      /** What is clipped where the ratio leaves its bounds. */
      clip: z.enum(CLIPS).default(member.clip),
      /** The ratio counts within [1 - clipLow, 1 + clipHigh]. */
      clipLow: z.number().min(0).max(1).optional().prefault(member.clipLow),
      clipHigh: z.number().min(0).optional().prefault(member.clipHigh),
      /** What the sum over a minibatch's tokens is divided by. */
      normalize: z.enum(NORMALIZATIONS).default(member.normalize),
      /** Weight of the KL penalty, and where it acts. */
      beta: z.number().min(0).default(member.beta),
      kl: z.enum(KLS).default(member.kl),
      reference: z.enum(["stage-start", "base"]).default("stage-start"),
      /** Leaves out groups whose rewards are all equal; kept, they dilute the mean (and feel the KL penalty). */
      dropFlatGroups: z.boolean().default(member.dropFlatGroups),
      /** How often a step may draw further problems in the place of those that were left out. */
      refills: z.int().min(0).default(member.refills),
      /** What a response loses that is as long as it may be; less where it ends within the last `overlongBuffer` tokens: a number, or a part of maxTokens. */
      overlongPenalty: z.number().min(0).default(member.overlongPenalty),
      overlongBuffer: z
        .number()
        .positive()
        .refine((w) => w < 1 || Number.isInteger(w), "a fraction below 1 of maxTokens, or a whole number of tokens")
        .default(0.2),
      /** Leaves responses that ended at their length limit out of the update, but not out of their group's mean. */
      maskTruncated: z.boolean().default(false),
      /** mu: times that a step's samples are trained on. */
      innerPasses: z.int().positive().default(1),
      /** Optimizer updates a pass, each on its share of the problems. */
      minibatches: z.int().positive().default(member.minibatches),
      ...optimizerSettings({ lr: 5e-6, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, maxGradNorm: 0.1 }),
    })
    .refine(drawsWhole, TRUNCATED)
    .superRefine((settings, context) => {
      refuse(contradictions(settings, member), settings, context);
    });
}
export type GroupSettings = z.output<ReturnType<typeof groupSettings>>;

/** Parts that cannot stand beside each other: by which key, and why. */
function contradictions(s: GroupSettings, member: Member): Contradiction<GroupSettings>[] {
  const withinGroup = s.baseline === "group" || s.baseline === "leave-one-out";
  const rules: [boolean, keyof GroupSettings, string][] = [
    [
      s.samples === 1 && withinGroup,
      "samples",
      `baseline = "${s.baseline}" compares a response with others to the same problem and needs 2 samples or more`,
    ],
    [
      s.scale === "group" && !withinGroup,
      "scale",
      `scale = "group" needs baseline = "group" or "leave-one-out": under baseline = "${s.baseline}" a group of equal rewards has an advantage, which a deviation of 0 would divide`,
    ],
    [
      s.scale === "batch" && s.baseline === "running",
      "scale",
      'scale = "batch" takes the batch\'s own mean off again, so that baseline = "running" would count for nothing; take scale = "none" or baseline = "batch"',
    ],
    [
      s.dropFlatGroups && !withinGroup,
      "dropFlatGroups",
      `dropFlatGroups = true leaves out groups that teach nothing, but under baseline = "${s.baseline}" a group of equal rewards does: it is above or below the baseline`,
    ],
    [
      s.refills > 0 && !s.dropFlatGroups,
      "refills",
      "refills take the places of groups that dropFlatGroups = true leaves out, and it is false",
    ],
    [
      s.clip !== "none" && (s.clipLow === undefined || s.clipHigh === undefined),
      s.clipLow === undefined ? "clipLow" : "clipHigh",
      `clip = "${s.clip}" needs clipLow and clipHigh, the bounds [1 - clipLow, 1 + clipHigh] of the ratio`,
    ],
    [
      s.clip === "none" && s.clipLow !== member.clipLow,
      "clipLow",
      'clip = "none" clips nothing, so clipLow would count for nothing; take clip = "surrogate" or leave it out',
    ],
    [
      s.clip === "none" && s.clipHigh !== member.clipHigh,
      "clipHigh",
      'clip = "none" clips nothing, so clipHigh would count for nothing; take clip = "surrogate" or leave it out',
    ],
    [
      s.clip === "weight" && s.ratio === "sequence",
      "clip",
      'clip = "weight" weighs each token\'s log-prob by its own ratio and needs ratio = "token"; with ratio = "sequence" take "surrogate" or "none"',
    ],
    [
      s.overlongPenalty === 0 && s.overlongBuffer !== 0.2,
      "overlongBuffer",
      "overlongBuffer says where overlongPenalty begins, and that is 0",
    ],
    [s.overlongBuffer > s.maxTokens, "overlongBuffer", `overlongBuffer lies within maxTokens, which is ${s.maxTokens}`],
    [
      s.beta === 0 && s.kl !== member.kl,
      "kl",
      "beta = 0 has no KL penalty, so that kl would count for nothing; set beta or leave kl out",
    ],
    [
      s.beta === 0 && s.reference !== "stage-start",
      "reference",
      "beta = 0 has no KL penalty, so that reference would count for nothing; set beta or leave reference out",
    ],
    [
      s.prompts % s.minibatches !== 0,
      "minibatches",
      `minibatches, which is ${s.minibatches}, must divide prompts evenly, which is ${s.prompts}`,
    ],
  ];
  return rules.flatMap(([broken, key, why]) => (broken ? [{ key, why }] : []));
}
