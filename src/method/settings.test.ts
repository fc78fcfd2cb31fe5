import { describe, expect, test } from "vitest";
import { grpoSettings } from "./grpo.ts";
import { sftSettings } from "./sft.ts";
import { adam } from "./update.ts";

const issueOf = (settings: object) => grpoSettings.safeParse(settings).error?.issues[0];

describe("settings", () => {
  test("defaults stand for themselves", () => {
    expect(sftSettings.parse({})).toEqual({
      batch: 48,
      accepted: false,
      lr: 1e-5,
      betas: [0.9, 0.999],
      eps: 1e-8,
      weightDecay: 0,
      maxGradNorm: 1,
    });
    expect(grpoSettings.parse({})).toMatchObject({ prompts: 8, samples: 8, beta: 0, normalize: "token", lr: 5e-6 });
  });

  test("unknown keys are refused", () => {
    expect(issueOf({ sample: 4 })).toMatchObject({ code: "unrecognized_keys", keys: ["sample"] });
  });

  test.each([{ topP: 0.9 }, { topK: 20 }])("truncated sampling is refused unless allowed: %o", (cut) => {
    expect(issueOf(cut)).toMatchObject({ path: ["allowTruncated"], message: /needs allowTruncated = true/ });
    expect(issueOf({ ...cut, allowTruncated: true })).toBeUndefined();
  });

  test("minibatches divide the prompts", () => {
    expect(issueOf({ prompts: 6, minibatches: 4 })?.message).toBe("minibatches must divide prompts evenly, which is 6");
    expect(issueOf({ prompts: 6, minibatches: 3 })).toBeUndefined();
  });

  test("a group of one has no advantage", () => {
    expect(issueOf({ samples: 1 })).toMatchObject({ path: ["samples"] });
  });

  test("maxGradNorm 0 never clips", () => {
    const settings = sftSettings.parse({ maxGradNorm: 0 });
    expect(adam(settings, 0.5)).toEqual({
      groups: { body: { lr: 0.5, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 } },
      maxGradNorm: undefined,
    });
    expect(adam({ ...settings, maxGradNorm: 1 }, 0.5).maxGradNorm).toBe(1);
  });

  test("functional tokens have a learning rate of their own, which the schedule scales too", () => {
    const settings = sftSettings.parse({ lr: 1e-3, tokensLr: 8e-3 });
    const { groups } = adam(settings, 5e-4);
    expect(groups.body.lr).toBe(5e-4);
    expect(groups.tokens).toEqual({ ...groups.body, lr: 4e-3 });
  });
});
