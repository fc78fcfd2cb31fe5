/**
 * The library. Everything that the command line does can be called; `src/cli/` shows how. What a task file imports is
 * `rifft/task`. Pieces by the way data walks: recipe, task, engine, rollout, method, evaluation.
 */
export { UserError } from "./errors.ts";

// Runs: a recipe, its stages, their folder.
export { parseRecipe, readRecipe, type Recipe, type StageRecipe, type TaskReference } from "./run/recipe.ts";
export { resume, type ResumeOptions, type RunResult, train, type TrainOptions } from "./run/train.ts";
export { checkpointState, modelFolder } from "./run/models.ts";
export { rerankSamples, type Reranked, type RerankOptions } from "./run/rerank.ts";
export { type CurvePoint, readCurve } from "./run/curve.ts";
export { exportRun, type ExportFormat, type ExportOptions, type ExportResult } from "./run/export.ts";
export { createProgress, type Progress, type StageInfo, type StepReport } from "./run/progress.ts";

// Experiments: arms, settings and seeds as runs, and their table.
export { type ExperimentFile, parseExperiment, readExperiment } from "./experiment/file.ts";
export { type ExperimentProgress, experimentProgress } from "./experiment/progress.ts";
export { type ExperimentOptions, type ExperimentResult, runExperiment } from "./experiment/run.ts";
export type { Analysis, ArmAt, ContrastResult } from "./experiment/analyse.ts";

// Tasks: problems, prompts, rewards.
export { createTask } from "./task/create.ts";
export { loadTask, type LoadOptions } from "./task/load.ts";
export { encodePrompt, encodeResponse } from "./task/prompt.ts";
export type {
  Grade,
  Grading,
  Problem,
  ProblemSource,
  ProgramResult,
  ProgramSettings,
  Prompt,
  Reward,
  Split,
  Task,
  TaskDefinition,
} from "./task/types.ts";

// Programs that a model wrote.
export { openSandbox, type Outcome, type Sandbox, type SandboxOptions } from "./sandbox/index.ts";

// Models: files in, and from the Hub.
export { loadModelFiles } from "./model/load.ts";
export { pull, type PullOptions, type PullProgress, type PullResult } from "./model/hub.ts";
export type { Message, ModelConfig, ModelFiles, Tokenizer } from "./model/types.ts";

// The engine: create, sample, forward, forwardBackward, optimStep, save.
export { createLocalEngine, type LocalEngineOptions } from "./engine/local/index.ts";
export type {
  AdamSettings,
  Capabilities,
  Engine,
  HeadSpec,
  LoraSettings,
  Loss,
  LossResult,
  Model,
  ModelInfo,
  ModelSpec,
  OptimSettings,
  Policy,
  Sample,
  SampleRequest,
  ScoreGradient,
  Scores,
  StepResult,
  TokenCounts,
} from "./engine/types.ts";

// The forest of tokens.
export type { Forest, Segment, Source, StopReason, Tree } from "./forest/types.ts";
export { groupTree, sequenceTree, type GroupOptions, type SampledTokens } from "./forest/build.ts";
export { countTokens, depths, leaves, pathTo } from "./forest/walk.ts";
export { validateForest } from "./forest/validate.ts";
export { decodeTree, encodeTree } from "./forest/json.ts";

// Methods, and what they are made of.
export {
  answerInRounds,
  type Chain,
  type Continued,
  continueRounds,
  type FirstResponse,
  type RoundResponse,
  type RoundsSampling,
  type RoundsSettings,
} from "./rollout/rounds.ts";
export { sampleGroups, type GroupRollout, type SamplingSettings } from "./rollout/single.ts";
export { sft, type SftSettings } from "./method/sft.ts";
export { grpo, type GrpoSettings } from "./method/grpo.ts";
export { selftrain, type SelftrainSettings } from "./method/selftrain.ts";
export { onlineSelftrain, type OnlineSelftrainSettings } from "./method/selftrain-online.ts";
export { motif } from "./method/motif.ts";
export type { MotifSettings } from "./method/motif-settings.ts";
export { reft, type ReftSettings } from "./method/reft.ts";
export { rerank, type RerankSettings } from "./method/rerank.ts";
export {
  explainedVariance,
  gae,
  groupAdvantages,
  leaveOneOutAdvantages,
  overlong,
  tokenWeights,
  whiten,
} from "./method/advantages.ts";
export {
  cispo,
  clippedValue,
  type ClipThresholds,
  crossEntropy,
  gspo,
  importanceSampling,
  ppo,
  ppoValue,
  valuesBefore,
  withKl,
} from "./method/losses.ts";
export type { DataStage, DrawingStep, Stage, Step, StoredSample } from "./method/stage.ts";

// Evaluation.
export { evaluate, type EvaluateOptions, takeProblems } from "./eval/evaluate.ts";
export {
  type EvaluationReport,
  type EvaluationSettings,
  gradingSettings,
  type Group,
  type Measure,
  reportOf,
} from "./eval/report.ts";
export { regradeSample } from "./eval/regrade.ts";
export { type AnswerGrade, type EvaluatedSample, readSamples } from "./eval/samples.ts";
export { reportText } from "./eval/table.ts";
export { type GoldFinding, validateGolds, type Validation } from "./eval/validate.ts";
export { findLeaks, type Leak } from "./task/leaks.ts";
export { type Interval, wilson95 } from "./eval/intervals.ts";
export { type Bar, histogram, type SolveRate, solveRates } from "./eval/profile.ts";

// Pages.
export { comparisonView, evaluationView } from "./view/evaluation.ts";
export { type View, viewPage } from "./view/page.ts";
export { runView, type RunViewOptions } from "./view/run.ts";
