import { ENDS } from "../rollout/search.ts";
import { type Explored, isChoice } from "./tree-credit.ts";

/**
 * What the paths of a step are like: how many a question has, their tokens (`responseLength`) and steps, the share cut off (`truncated`), how often their
 * tokens are shared (`sharing`: tokens in paths a token in the tree), and for each way of ending (`ends/...`) its share of the rollouts.
 */
export function exploredMetrics(explored: readonly Explored[]): Record<string, number> {
  const paths = explored.flatMap(({ tree, paths }) =>
    paths.map(({ segments }) => segments.map((s) => tree.segments[s])),
  );
  if (paths.length === 0) return {};
  const lengths = paths.map((segments) => segments.reduce((sum, { tokens }) => sum + tokens.length, 0));
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const unique = explored.reduce(
    (sum, { tree }) => sum + tree.segments.slice(1).reduce((own, { tokens }) => own + tokens.length, 0),
    0,
  );
  const unfinished = paths.filter((segments) => segments.at(-1)?.outcome?.finished === 0).length;
  const metrics: Record<string, number> = {
    paths: paths.length / explored.length,
    responseLength: total / paths.length,
    truncated: unfinished / paths.length,
    sharing: total / unique,
  };
  const rollouts = explored.flatMap(({ nodes }) =>
    nodes.flatMap(({ end, rollouts }) => (end === undefined ? [] : [{ end, rollouts }])),
  );
  if (rollouts.length === 0) return metrics;
  const ended = rollouts.reduce((sum, { rollouts }) => sum + rollouts, 0);
  for (const end of ENDS) {
    const share = rollouts.filter((one) => one.end === end).reduce((sum, { rollouts }) => sum + rollouts, 0) / ended;
    if (share > 0) metrics[`ends/${end}`] = share;
  }
  metrics.steps = paths.reduce((sum, segments) => sum + segments.filter(isChoice).length, 0) / paths.length;
  const chosen = explored.flatMap(({ tree }) => tree.segments.filter(isChoice));
  metrics.searched = chosen.filter(({ source }) => source === "search").length / chosen.length;
  return metrics;
}
