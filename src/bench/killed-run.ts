import { dirname } from "node:path";
import { silentProgress } from "../run/progress.ts";
import { train } from "../run/train.ts";
import { doctorRecipe } from "./selftest.ts";

// A run that is killed, as if from outside, while its third step trains.

let trainings = 0;
const dir = process.argv[2];
await train(doctorRecipe(dirname(dir)), {
  run: dir,
  progress: {
    ...silentProgress,
    activity(what) {
      if (what === "train" && ++trainings === 3) process.kill(process.pid, "SIGKILL");
    },
  },
});
