import { UserError } from "../errors.ts";

interface Staged {
  model: string;
  stages: { format?: string; inRounds: boolean; settings: Record<string, unknown> }[];
}

/** Throws a UserError where a stage in rounds has a key that counts for nothing, or asks for what its model cannot be. */
export function checkStagesInRounds({ model, stages }: Staged, source: string): void {
  stages.forEach(({ format, inRounds, settings }, i) => {
    if (format !== undefined && inRounds) {
      throw new UserError(
        `${source}: \`stage.${i + 1}.format\`: the stage asks in rounds, which have a prompt of their own, so that format counts for nothing; leave it out`,
      );
    }
    if (settings.continuationPolicy === "frozenBase" && model === "tiny") {
      throw new UserError(
        `${source}: \`stage.${i + 1}.continuationPolicy\`: "frozenBase" is the recipe's model without any training, and "tiny" is made from scratch and knows nothing; take "current"`,
      );
    }
  });
}
