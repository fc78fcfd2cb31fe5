import type { Model, Sample } from "../engine/types.ts";
import { groupTree } from "../forest/build.ts";
import type { Forest } from "../forest/types.ts";
import { G1, type Step, TAG_TOKENS } from "../tags/index.ts";
import { encodePrompt } from "../task/prompt.ts";
import { markedStrategy, ownAnswer, stateAnswer, statedAnswers } from "../task/grading.ts";
import { questionWithOptions } from "../task/questions.ts";
import type { Grading, Problem, Prompt } from "../task/types.ts";
import { Mcts, type MctsSettings, type Rollout } from "./mcts.ts";
import {
  type Action,
  ACTION_STOPS,
  actionPrompt,
  actionText,
  answerLength,
  finishedText,
  isAction,
  saysFinal,
} from "./prompt-actions.ts";

/** How the model writes solutions by prompts. */
export interface PromptSearchSettings extends Pick<MctsSettings, "rollouts" | "c" | "schedule"> {
  /** Longest path in steps. */
  maxDepth: number;
  temperature: number;
  /** New tokens of each action's text. */
  maxTokens: Record<Action, number>;
  /** Simulations pass over direct answers of more sentences or paragraphs than this; selection passes over all of them. */
  longAnswer: number;
  /** Rollouts of one tree in flight at once; 1 is the sequential search. */
  inFlight: number;
}

/** A question to search. */
export interface PromptQuestion {
  /** Names the trees of its calls. */
  id: string;
  problem: string;
  question: string;
  /** Whether prompts are rendered by the chat template. */
  chat: boolean;
  /** How an answer is stated, with `...` in its place. */
  answerForm: string;
  /**
   * The answer that a text states; undefined where it states none. Of a step that does not say that it is the last one (`last` false) only what the
   * task's own marker states.
   */
  answerOf: (text: string, last: boolean) => string | undefined;
  /** Names the random stream. */
  key: string;
  /** In [0, 1): the random number of a rollout at a depth. */
  random: (rollout: number, depth: number) => number;
}

/** A problem as a search by prompts asks it: by itself, without the task's instructions. */
export function promptQuestion(
  problem: Problem,
  grading: Grading,
): Pick<PromptQuestion, "problem" | "question" | "chat" | "answerForm" | "answerOf"> {
  return {
    problem: problem.id,
    question: questionWithOptions(problem),
    chat: "messages" in problem.prompt,
    answerForm: stateAnswer(markedStrategy(grading), "..."),
    answerOf: (text, last) => (last ? statedAnswers(text, grading)[0] : ownAnswer(text, grading)),
  };
}

/** An answer to be judged. */
export interface PromptAnswer {
  /** Which of the questions. */
  question: number;
  answer: string;
}

/** A node as it was written; node 0 is the question. */
export interface PromptNode {
  step?: Step;
  /** Ends its path: a direct answer, or a step that gives the answer. */
  solution: boolean;
  answer?: string;
  /** 1 where the answer is right, or as it was given last. */
  value: number;
  /** Sentences or paragraphs of a direct answer. */
  length: number;
  /** As the model wrote it. */
  sample?: Pick<Sample, "tokens" | "logprobs" | "stop">;
}

/** What a tree's calls came to, beside its nodes. */
export interface PromptCounts {
  /** Texts that were asked for. */
  texts: number;
  /** Of these, cut off at the token limit. */
  cut: number;
  /** Left out: nothing (whole) was written; a tag was written; the prompt filled the context. */
  empty: number;
  tagged: number;
  overlong: number;
}

export interface PromptTree {
  search: Mcts;
  nodes: PromptNode[];
  counts: PromptCounts;
  /** The node where each rollout ended, in the order in which they began; undefined of one that was in flight when the search was interrupted. */
  leaves: (number | undefined)[];
  /** By rollout, the tokens that were written for it: of all children of the nodes that it was the first to wait for. */
  written: number[];
}

export interface PromptSearchHooks {
  /** Values of a question's solutions that state an answer, in the order of nodes, again after each wave that gave it new ones. */
  revalue?: (question: number, answers: string[]) => number[];
  /** Asked before each wave; true ends the search with the rollouts that have ended. */
  interrupted?: () => boolean;
}

/** A solution in a tree. */
export interface Solution {
  /** Node ids from below the root to the leaf. */
  trajectory: number[];
  steps: Step[];
  answer?: string;
  right: boolean;
  /** Process rewards, one a step. */
  scores?: number[];
}

/** A tree in progress. */
interface Growing extends PromptTree {
  question: PromptQuestion;
  active: Rollout[];
}

interface Call {
  tree: number;
  node: number;
  action: Action;
  count: number;
  prompt: Int32Array;
}

/**
 * Tree search whose steps a model writes by being asked for them (RFTT's phase 1, arXiv 2502.13389; rStar's search). All trees advance
 * together: a wave is one call of the model for whatever the trees' rollouts wait for. A tree's result depends on its own key and the
 * settings alone. `judge` says which answers are right, in the order asked. `forest`: a tree for each call, with its texts.
 */
export async function promptSearch(
  model: Model,
  questions: PromptQuestion[],
  settings: PromptSearchSettings,
  judge: (answers: PromptAnswer[]) => Promise<boolean[]>,
  hooks: PromptSearchHooks = {},
): Promise<{ trees: PromptTree[]; forest: Forest }> {
  const trees = questions.map((question) => newTree(question, settings));
  const forest: Forest = [];
  for (;;) {
    const waiting = trees.map((tree) => advance(tree, settings));
    const over = !waiting.some(({ size }) => size > 0);
    if (over || hooks.interrupted?.() === true) {
      for (const { search, active } of trees) for (const rollout of active.splice(0)) search.drop(rollout);
      return { trees, forest };
    }
    const calls = trees.flatMap((tree, t) => [...waiting[t].keys()].flatMap((node) => callsOf(model, tree, t, node)));
    const samples = await model.sample(
      calls.map(({ tree, node, action, count, prompt }) => ({
        prefix: prompt,
        n: count,
        maxTokens: Math.min(settings.maxTokens[action], model.info.maxContext - prompt.length),
        temperature: settings.temperature,
        stop: ACTION_STOPS[action],
        key: `${questions[tree].key}/${node}/${action}`,
      })),
    );
    let at = 0;
    const written = calls.map((call) => ({ call, samples: samples.slice(at, (at += call.count)) }));
    for (const { call, samples: own } of written) {
      const { id, problem } = questions[call.tree];
      const about = { id: `${id}/${call.node}/${call.action}`, problem };
      forest.push(groupTree(about, call.prompt, own, { temperature: settings.temperature }));
      const rollout = waiting[call.tree].get(call.node) ?? 0;
      const tokens = own.reduce((sum, one) => sum + one.tokens.length, 0);
      trees[call.tree].written[rollout] += tokens;
    }
    await grow(trees, waiting, written, judge);
    if (hooks.revalue !== undefined) revalue(trees, written, hooks.revalue);
  }
}

function newTree(question: PromptQuestion, settings: PromptSearchSettings): Growing {
  const nodes: PromptNode[] = [{ solution: false, value: 0, length: 0 }];
  const direct = (id: number) => nodes[id].step?.fn === "direct_answer";
  const search = new Mcts({
    rollouts: settings.rollouts,
    c: settings.c,
    schedule: settings.schedule,
    random: question.random,
    unselectable: direct,
    unsimulated: (id) => direct(id) && nodes[id].length > settings.longAnswer,
  });
  return {
    question,
    search,
    nodes,
    active: [],
    counts: { texts: 0, cut: 0, empty: 0, tagged: 0, overlong: 0 },
    leaves: new Array<undefined>(settings.rollouts).fill(undefined),
    written: new Array<number>(settings.rollouts).fill(0),
  };
}

/** Moves a tree's rollouts until each has ended or waits for a node's children; returns these nodes, and the first rollout that waits there. */
function advance(tree: Growing, { rollouts, maxDepth, inFlight }: PromptSearchSettings): Map<number, number> {
  const { search, nodes } = tree;
  const waiting = new Map<number, number>();
  const walk = (rollout: Rollout): boolean => {
    for (;;) {
      const { id, depth, children } = search.nodes[rollout.path[rollout.path.length - 1]];
      const ends = nodes[id].solution || depth >= maxDepth;
      if (!ends && children === undefined) {
        if (!waiting.has(id)) waiting.set(id, rollout.index);
        return false;
      }
      if (ends || search.step(rollout) === undefined) {
        search.backup(rollout, nodes[id].value);
        tree.leaves[rollout.index] = id;
        return true;
      }
    }
  };
  tree.active = tree.active.filter((rollout) => !walk(rollout));
  while (tree.active.length < inFlight && search.started < rollouts) {
    const rollout = search.start();
    if (!walk(rollout)) tree.active.push(rollout);
  }
  return waiting;
}

/** What the model is asked for a node's children; nothing for an action whose prompt fills the context. */
function callsOf(model: Model, tree: Growing, index: number, node: number): Call[] {
  const { question, counts } = tree;
  const steps = stepsTo(tree, node);
  const from = steps.at(-1)?.fn ?? "root";
  return G1.next[from].flatMap(({ fn, children: count }) => {
    if (!isAction(fn)) return [];
    const text = actionPrompt(fn, { question: question.question, steps, answerForm: question.answerForm });
    const prompt = encodePrompt(model.tokenizer, { id: question.problem, prompt: asked(text, question.chat) });
    if (prompt.length < model.info.maxContext) return [{ tree: index, node, action: fn, count, prompt }];
    counts.overlong += count;
    return [];
  });
}

/** A text as it is put to the model. */
export const asked = (text: string, chat: boolean): Prompt =>
  chat ? { messages: [{ role: "user", content: text }] } : { text: `${text}\n` };

/** Gives the nodes that waited their children, in the grammar's order. */
async function grow(
  trees: Growing[],
  waiting: Map<number, number>[],
  written: { call: Call; samples: Sample[] }[],
  judge: (answers: PromptAnswer[]) => Promise<boolean[]>,
): Promise<void> {
  const children = new Map<string, PromptNode[]>();
  const answers: (PromptAnswer & { node: PromptNode })[] = [];
  for (const { call, samples } of written) {
    const place = `${call.tree}/${call.node}`;
    const own = children.get(place) ?? [];
    children.set(place, own);
    for (const sample of samples) {
      const node = nodeOf(trees[call.tree], call.action, sample);
      if (node === undefined) continue;
      own.push(node);
      if (node.answer !== undefined) answers.push({ question: call.tree, answer: node.answer, node });
    }
  }
  const right = await judge(answers.map(({ question, answer }) => ({ question, answer })));
  answers.forEach(({ node }, i) => (node.value = Number(right[i])));
  trees.forEach(({ search, nodes }, t) => {
    for (const id of waiting[t].keys()) {
      const own = children.get(`${t}/${id}`) ?? [];
      search.expand(id, own.length);
      nodes.push(...own);
    }
  });
}

/** Gives the solutions of trees that have new ones their values again. */
function revalue(trees: Growing[], written: { call: Call }[], values: NonNullable<PromptSearchHooks["revalue"]>): void {
  for (const t of new Set(written.map(({ call }) => call.tree))) {
    const { nodes, search } = trees[t];
    const answered = nodes.flatMap(({ answer }, id) => (answer === undefined ? [] : [{ id, answer }]));
    if (answered.length === 0) continue;
    const given = values(
      t,
      answered.map(({ answer }) => answer),
    );
    answered.forEach(({ id }, i) => {
      search.revalue(id, (given[i] - nodes[id].value) * search.nodes[id].N);
      nodes[id].value = given[i];
    });
  }
}

/** The node that a text makes; undefined where it is left out. */
function nodeOf({ question, counts }: Growing, fn: Action, sample: Sample): PromptNode | undefined {
  const cut = sample.stop === "length";
  counts.texts++;
  if (cut) counts.cut++;
  const text = actionText(fn, sample.text, cut);
  if (text === "") {
    counts.empty++;
    return undefined;
  }
  if (TAG_TOKENS.some((tag) => text.includes(tag))) {
    counts.tagged++;
    return undefined;
  }
  const direct = fn === "direct_answer";
  const last = direct || (fn === "next_step" && saysFinal(sample.text));
  // A label may be what states the answer ("Answer: 5").
  const answer = direct || fn === "next_step" ? question.answerOf(finishedText(sample.text, cut), last) : undefined;
  const solution = last || answer !== undefined;
  return {
    step: { fn, text },
    solution,
    ...(answer === undefined ? {} : { answer }),
    value: 0,
    length: direct ? answerLength(text) : 0,
    sample: { tokens: sample.tokens, logprobs: sample.logprobs, stop: sample.stop },
  };
}

/** The nodes below the root on the way to a node, that included. */
function trajectoryTo({ search }: PromptTree, node: number): number[] {
  const path: number[] = [];
  for (let id = node; id > 0; id = search.nodes[id].parent) path.unshift(id);
  return path;
}

const stepsTo = (tree: PromptTree, node: number): Step[] =>
  trajectoryTo(tree, node).flatMap((id) => tree.nodes[id].step ?? []);

/** All solutions of a tree, visited or not, depth first. */
export function harvest(tree: PromptTree): Solution[] {
  const found: Solution[] = [];
  const walk = (id: number) => {
    const { solution, answer, value } = tree.nodes[id];
    if (solution) {
      const steps = stepsTo(tree, id);
      found.push({
        trajectory: trajectoryTo(tree, id),
        steps,
        ...(answer === undefined ? {} : { answer }),
        right: value === 1,
      });
    } else for (const child of tree.search.nodes[id].children ?? []) walk(child);
  };
  walk(0);
  return found;
}
