// Generated: python -m asyncrunner_events.catalogue

/** A number; JSON has none for NaN and the infinities. */
export type Float = number | "NaN" | "Infinity" | "-Infinity";

/** One line of a run's journal: a CloudEvents 1.0 JSON object. */
export interface Envelope<Type, Kind, Data> {
  /** The version of CloudEvents. */
  specversion: "1.0";
  /** The event's `seq`: its place in the attempt, gap-free, from 0. */
  id: string;
  /** The run's id, how many times it was started before, the process's rank. */
  source: string;
  /** The kind, and the version of its fields. */
  type: Type;
  /** The event's name. */
  kind?: Kind;
  /** When it was published, in UTC, with nanoseconds. */
  time: string;
  /** `id` again, in the form that sorts. */
  sequence?: string;
  /** Monotonic time of publishing in nanoseconds; differences are durations. */
  monotonicns: string;
  /** The `id` of the event whose subscriber published this one. */
  causationid?: string;
  /** The event's fields. */
  data: Data;
}

export interface Histogram {
  low: Float;
  high: Float;
  counts: Array<number>;
  nonfinite?: number;
}

export interface EventData {
  /** Epochs completed; 0-based while one runs. Stamped by the bus if not given. */
  epoch?: number;
  /** Training iterations completed; counted before the increment, so the first is 0. */
  iter?: number;
  /** Epochs the run will train for, if it is counted in epochs. */
  max_epochs?: number | null;
  /** Iterations the run will train for, if that is known. */
  max_iters?: number | null;
  /** Which loop was running. */
  stage?: "train" | "val" | "test" | null;
}

/** Published first: the model is built, nothing is loaded or trained yet. */
export type BeforeRun = Envelope<"dev.asyncrunner.before_run.v1", "before_run", EventData>;

export interface AfterLoadCheckpointData extends EventData {
  /** Where it was read from. */
  path: string;
  /** Whether the run goes on from it; else only its weights are taken. */
  resuming?: boolean;
}

/** A checkpoint was read; nothing of it is in the model yet, so `checkpoint` may be changed. */
export type AfterLoadCheckpoint = Envelope<"dev.asyncrunner.after_load_checkpoint.v1", "after_load_checkpoint", AfterLoadCheckpointData>;

/** Published once, before the first epoch; counters are restored. */
export type BeforeTrain = Envelope<"dev.asyncrunner.before_train.v1", "before_train", EventData>;

/** An epoch begins; the model is not yet in training mode. */
export type BeforeTrainEpoch = Envelope<"dev.asyncrunner.before_train_epoch.v1", "before_train_epoch", EventData>;

export interface BeforeTrainIterData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
}

/** A batch was fetched; `iter` counts the iterations before this one. */
export type BeforeTrainIter = Envelope<"dev.asyncrunner.before_train_iter.v1", "before_train_iter", BeforeTrainIterData>;

export interface AfterTrainIterData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
}

/** The optimizer has stepped; `iter` is not yet incremented. */
export type AfterTrainIter = Envelope<"dev.asyncrunner.after_train_iter.v1", "after_train_iter", AfterTrainIterData>;

export interface AfterTrainEpochData extends EventData {
  /** False if the run was asked to stop before the loader was at its end. */
  is_complete?: boolean;
}

/** An epoch ended; `iter` is incremented already, `epoch` is not. */
export type AfterTrainEpoch = Envelope<"dev.asyncrunner.after_train_epoch.v1", "after_train_epoch", AfterTrainEpochData>;

export interface BeforeValData extends EventData {
  /** The name of the validation set. */
  dataset?: string;
}

/** A validation set's turn begins; the model is still in the mode it was in. */
export type BeforeVal = Envelope<"dev.asyncrunner.before_val.v1", "before_val", BeforeValData>;

export interface BeforeValEpochData extends EventData {
  /** The name of the validation set. */
  dataset?: string;
}

/** Published once per validation, after `BeforeVal`; weights may be swapped here. */
export type BeforeValEpoch = Envelope<"dev.asyncrunner.before_val_epoch.v1", "before_val_epoch", BeforeValEpochData>;

export interface BeforeValIterData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the validation set. */
  dataset?: string;
}

/** A batch of the validation set was fetched. */
export type BeforeValIter = Envelope<"dev.asyncrunner.before_val_iter.v1", "before_val_iter", BeforeValIterData>;

export interface AfterValIterData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the validation set. */
  dataset?: string;
}

/** The batch went through the model and into the metrics. */
export type AfterValIter = Envelope<"dev.asyncrunner.after_val_iter.v1", "after_val_iter", AfterValIterData>;

export interface AfterValEpochData extends EventData {
  /** The name of the validation set. */
  dataset?: string;
  /** The metrics, from name to value. */
  metrics?: Record<string, Float>;
}

/** The metrics are there; not published if the run was stopped before the last batch. */
export type AfterValEpoch = Envelope<"dev.asyncrunner.after_val_epoch.v1", "after_val_epoch", AfterValEpochData>;

export interface AfterValData extends EventData {
  /** The name of the validation set. */
  dataset?: string;
}

/** The validation set's turn is over, swapped weights go back here; also after an error. */
export type AfterVal = Envelope<"dev.asyncrunner.after_val.v1", "after_val", AfterValData>;

export interface BeforeSaveCheckpointData extends EventData {
  /** Where it will be. */
  path: string;
}

/** A checkpoint is about to be written; `checkpoint` may still be changed. */
export type BeforeSaveCheckpoint = Envelope<"dev.asyncrunner.before_save_checkpoint.v1", "before_save_checkpoint", BeforeSaveCheckpointData>;

/** Training is over; published also after an error or an interruption. */
export type AfterTrain = Envelope<"dev.asyncrunner.after_train.v1", "after_train", EventData>;

export interface BeforeTestData extends EventData {
  /** The name of the test set. */
  dataset?: string;
}

/** The test loop begins. */
export type BeforeTest = Envelope<"dev.asyncrunner.before_test.v1", "before_test", BeforeTestData>;

export interface BeforeTestEpochData extends EventData {
  /** The name of the test set. */
  dataset?: string;
}

/** Published once per test, after `BeforeTest`; weights may be swapped here. */
export type BeforeTestEpoch = Envelope<"dev.asyncrunner.before_test_epoch.v1", "before_test_epoch", BeforeTestEpochData>;

export interface BeforeTestIterData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the test set. */
  dataset?: string;
}

/** A batch of the test set was fetched. */
export type BeforeTestIter = Envelope<"dev.asyncrunner.before_test_iter.v1", "before_test_iter", BeforeTestIterData>;

export interface AfterTestIterData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the test set. */
  dataset?: string;
}

/** The batch went through the model and into the metrics. */
export type AfterTestIter = Envelope<"dev.asyncrunner.after_test_iter.v1", "after_test_iter", AfterTestIterData>;

export interface AfterTestEpochData extends EventData {
  /** The name of the test set. */
  dataset?: string;
  /** The metrics, from name to value. */
  metrics?: Record<string, Float>;
}

/** The metrics are there. */
export type AfterTestEpoch = Envelope<"dev.asyncrunner.after_test_epoch.v1", "after_test_epoch", AfterTestEpochData>;

export interface AfterTestData extends EventData {
  /** The name of the test set. */
  dataset?: string;
}

/** The test is over; published also after an error. */
export type AfterTest = Envelope<"dev.asyncrunner.after_test.v1", "after_test", AfterTestData>;

/** Published last, also after an error or an interruption; nothing follows but the drain. */
export type AfterRun = Envelope<"dev.asyncrunner.after_run.v1", "after_run", EventData>;

export interface BeforeBackwardData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the optimizer whose turn it is. */
  optimizer?: string;
}

/** The loss is there, its gradients are not. */
export type BeforeBackward = Envelope<"dev.asyncrunner.before_backward.v1", "before_backward", BeforeBackwardData>;

export interface AfterBackwardData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the optimizer whose turn it is. */
  optimizer?: string;
}

/** The gradients of this batch were added to `.grad`; under fp16 they are scaled. */
export type AfterBackward = Envelope<"dev.asyncrunner.after_backward.v1", "after_backward", AfterBackwardData>;

export interface BeforeOptimizerStepData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the optimizer whose turn it is. */
  optimizer?: string;
}

/** The gradients are complete, unscaled and clipped; once per accumulation group. */
export type BeforeOptimizerStep = Envelope<"dev.asyncrunner.before_optimizer_step.v1", "before_optimizer_step", BeforeOptimizerStepData>;

export interface AfterOptimizerStepData extends EventData {
  /** The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`. */
  batch_idx: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The name of the optimizer whose turn it is. */
  optimizer?: string;
}

/** The parameters have changed and the gradients are cleared. */
export type AfterOptimizerStep = Envelope<"dev.asyncrunner.after_optimizer_step.v1", "after_optimizer_step", AfterOptimizerStepData>;

export interface ModuleForwardData extends EventData {
  /** The module's path, `layer3.0.conv1`. */
  module: string;
  /** The module's class name. */
  module_class: string;
  /** The shapes of the tensors that went in. */
  input_shapes?: Array<Array<number>>;
  /** The shapes of the tensors that came out. */
  output_shapes?: Array<Array<number>>;
  /** The dtypes of the tensors that came out. */
  dtypes?: Array<string>;
}

/** A probed module ran forward; `torch.nn.Module.register_forward_hook`. */
export type ModuleForward = Envelope<"dev.asyncrunner.module_forward.v1", "module_forward", ModuleForwardData>;

export interface ModuleBackwardData extends EventData {
  /** The module's path, `layer3.0.conv1`. */
  module: string;
  /** The module's class name. */
  module_class: string;
  /** The shapes of the tensors that went in. */
  input_shapes?: Array<Array<number>>;
  /** The shapes of the tensors that came out. */
  output_shapes?: Array<Array<number>>;
  /** The dtypes of the tensors that came out. */
  dtypes?: Array<string>;
}

/** A probed module ran backward; `torch.nn.Module.register_full_backward_hook`. */
export type ModuleBackward = Envelope<"dev.asyncrunner.module_backward.v1", "module_backward", ModuleBackwardData>;

export interface ModuleMeasuredData extends EventData {
  /** The module's path, `layer3.0.conv1`. */
  module: string;
  /** The module's class name. */
  module_class: string;
  /** Whether they are of the first output, or of the gradient of the first output. */
  direction: "forward" | "backward";
  /** `mean`, `std`, `min` and `max` of the finite elements; `zeros` and `nonfinite`, as shares. */
  metrics: Record<string, Float>;
}

/** Statistics of what a probed module gave are on the host, perhaps some iterations later. */
export type ModuleMeasured = Envelope<"dev.asyncrunner.module_measured.v1", "module_measured", ModuleMeasuredData>;

export interface MetricsReadyData extends EventData {
  /** The scalars that the step returned, or the metrics of the validation or test. */
  metrics?: Record<string, Float>;
  /** The name of the data set they were measured on. */
  dataset?: string;
  /** The batch's place in its epoch, from 0. */
  batch_idx?: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** The learning rate of the first parameter group, by optimizer. */
  lr?: Record<string, Float>;
  /** Seconds the loop waited for this batch. */
  data_time_s?: Float;
  /** Seconds forward, backward and the optimizer took on the host. */
  step_time_s?: Float;
  /** Seconds blocking subscribers took, since the times of the iteration before were taken. */
  subscriber_time_s?: Float;
}

/**
 * Numbers of a training iteration, or of a whole validation or test, are on the host.
 *
 * Published when the copies from the device have landed, so perhaps some iterations after the
 * one that `iter` names. The values are exact for that iteration. Subscribing with `every=10`
 * copies the scalars of one iteration in ten and none of the others.
 */
export type MetricsReady = Envelope<"dev.asyncrunner.metrics_ready.v1", "metrics_ready", MetricsReadyData>;

export interface StepFailedData extends EventData {
  /** The error's class and message. */
  error: string;
  /** The optimizer whose step it is. */
  optimizer?: string;
  /** The batch's place in its epoch, from 0. */
  batch_idx?: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
  /** In how many pieces it was being computed. */
  pieces?: number;
}

/**
 * Forward or backward ran out of memory; a blocking subscriber may decide what to do about it.
 *
 * It may call `skip_batch` or `split_batch`, and the last one who does decides. If nobody does the
 * error is raised, and ends the run.
 */
export type StepFailed = Envelope<"dev.asyncrunner.step_failed.v1", "step_failed", StepFailedData>;

export interface HostWaitedData extends EventData {
  /** What reads the value, `loss.item()`. */
  code: string;
  /** The file it is in. */
  file: string;
  /** The line, from 1. */
  line: number;
}

/**
 * A line of a step makes the host wait for the device; found once, in the second iteration.
 *
 * In a dry run on the CPU, where nothing waits: it would on an accelerator.
 */
export type HostWaited = Envelope<"dev.asyncrunner.host_waited.v1", "host_waited", HostWaitedData>;

export interface RunFailedData extends EventData {
  /** The error's class and message. */
  error: string;
  /** The whole traceback. */
  traceback: string;
}

/** An error ends the run; the clean-up mount points follow, then the error is raised. */
export type RunFailed = Envelope<"dev.asyncrunner.run_failed.v1", "run_failed", RunFailedData>;

export interface RunInterruptedData extends EventData {
  /** What cancelled it. */
  reason: string;
}

/** The run was cancelled from outside: Ctrl-C, or its task was. */
export type RunInterrupted = Envelope<"dev.asyncrunner.run_interrupted.v1", "run_interrupted", RunInterruptedData>;

export interface CheckpointSavedData extends EventData {
  /** Where it is. */
  path: string;
  /** How large it is. */
  size_bytes: number;
  /** How long writing took, in seconds. */
  duration_s: Float;
  /** Why: `regular` (by interval, or at the end), `best`, or `manual`. */
  purpose?: string;
  /** The name of the checkpointer that saved it. */
  by?: string;
  /** The metrics of the last validation. */
  metrics?: Record<string, Float>;
}

/**
 * A checkpoint is durable: its final name is on the disk.
 *
 * `epoch` and `iter` are what it has completed, however far training has gone on meanwhile.
 */
export type CheckpointSaved = Envelope<"dev.asyncrunner.checkpoint_saved.v1", "checkpoint_saved", CheckpointSavedData>;

export interface CheckpointFailedData extends EventData {
  /** Where it would have been. */
  path: string;
  /** The error's class and message. */
  error: string;
  /** The operating system's error number, if it was one of its errors. */
  errno?: number | null;
}

/** A checkpoint could not be written; the ones before are untouched. */
export type CheckpointFailed = Envelope<"dev.asyncrunner.checkpoint_failed.v1", "checkpoint_failed", CheckpointFailedData>;

export interface CheckpointSkippedData extends EventData {
  /** Where it would have been. */
  path: string;
  /** Where the newer one will be. */
  newer: string;
}

/** A checkpoint that waited to be written gave way to a newer one: the disk is too slow. */
export type CheckpointSkipped = Envelope<"dev.asyncrunner.checkpoint_skipped.v1", "checkpoint_skipped", CheckpointSkippedData>;

export interface CheckpointRejectedData extends EventData {
  /** Where it is. */
  path: string;
  /** What is wrong with it. */
  reason: string;
}

/** A checkpoint was not loaded because it is damaged or incomplete. */
export type CheckpointRejected = Envelope<"dev.asyncrunner.checkpoint_rejected.v1", "checkpoint_rejected", CheckpointRejectedData>;

export interface WeightsLoadedData extends EventData {
  /** Where they are from. */
  path: string;
  /** Parameters and buffers that it does not have; they stay as they were. */
  missing?: Array<string>;
  /** What it has, and the model has not. */
  unexpected?: Array<string>;
  /** What has another shape in the model, with both shapes. */
  mismatched?: Array<string>;
}

/** The model has weights of a checkpoint; what did not fit was left out only if asked to. */
export type WeightsLoaded = Envelope<"dev.asyncrunner.weights_loaded.v1", "weights_loaded", WeightsLoadedData>;

export interface RunResumedData extends EventData {
  /** The checkpoint. */
  path: string;
}

/** The run goes on where a checkpoint was taken; `epoch` and `iter` are completed. */
export type RunResumed = Envelope<"dev.asyncrunner.run_resumed.v1", "run_resumed", RunResumedData>;

export interface ResumeInexactData extends EventData {
  /** Why not, one sentence each. */
  reasons: Array<string>;
}

/** The run resumes, but cannot promise the numbers of a run that was never stopped. */
export type ResumeInexact = Envelope<"dev.asyncrunner.resume_inexact.v1", "resume_inexact", ResumeInexactData>;

export interface SubscriberFailedData extends EventData {
  /** The subscription's name. */
  subscriber: string;
  /** The `kind` of the event it was given. */
  event_kind: string;
  /** The `seq` of that event. */
  event_seq: number;
  /** The error's class and message. */
  error: string;
  /** The whole traceback. */
  traceback: string;
  /** Whether the subscription is now cancelled. */
  disabled: boolean;
}

/** A subscriber raised, or ran over its timeout, and the run goes on. */
export type SubscriberFailed = Envelope<"dev.asyncrunner.subscriber_failed.v1", "subscriber_failed", SubscriberFailedData>;

export interface SubscriberSlowData extends EventData {
  /** The subscription's name. */
  subscriber: string;
  /** How long the call took. */
  seconds: Float;
  /** Whether the loop waited for it. */
  blocking: boolean;
  /** Events waiting in its inbox; 0 for a blocking one. */
  queued: number;
}

/** One call of a subscriber took long; said again only when a call takes twice as long. */
export type SubscriberSlow = Envelope<"dev.asyncrunner.subscriber_slow.v1", "subscriber_slow", SubscriberSlowData>;

export interface EventsDroppedData extends EventData {
  /** The subscription's name. */
  subscriber: string;
  /** How many. */
  count: number;
  /** The `seq` of the first one. */
  first_seq: number;
  /** The `seq` of the last one. */
  last_seq: number;
}

/** A full inbox dropped events, all of them published without another between. */
export type EventsDropped = Envelope<"dev.asyncrunner.events_dropped.v1", "events_dropped", EventsDroppedData>;

export interface StopRequestedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
  /** Whether checkpointers save at the end; not if what was trained is of no use. */
  save?: boolean;
}

/** Somebody asked the run to end after the current iteration. */
export type StopRequested = Envelope<"dev.asyncrunner.stop_requested.v1", "stop_requested", StopRequestedData>;

export interface EpochEndRequestedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
}

/** Somebody asked the epoch to end after the current iteration, as if its data were at an end. */
export type EpochEndRequested = Envelope<"dev.asyncrunner.epoch_end_requested.v1", "epoch_end_requested", EpochEndRequestedData>;

export interface StepSkippedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
  /** The optimizer's name. */
  optimizer?: string;
}

/**
 * An optimizer did not step: its gradients were thrown away.
 *
 * It takes the place of `AfterOptimizerStep`; the accumulation group ends all the same.
 */
export type StepSkipped = Envelope<"dev.asyncrunner.step_skipped.v1", "step_skipped", StepSkippedData>;

export interface BatchSkippedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
  /** The optimizer whose step failed. */
  optimizer?: string;
  /** The batch's place in its epoch, from 0. */
  batch_idx?: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
}

/** A batch that does not fit into memory is left out; what its group had gathered is lost too. */
export type BatchSkipped = Envelope<"dev.asyncrunner.batch_skipped.v1", "batch_skipped", BatchSkippedData>;

export interface BatchSplitData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
  /** How many. */
  pieces: number;
  /** The optimizer whose step failed. */
  optimizer?: string;
  /** The batch's place in its epoch, from 0. */
  batch_idx?: number;
  /** Batches in the epoch, if the loader knows. */
  num_batches?: number | null;
}

/** A batch that does not fit into memory is computed again, in pieces. */
export type BatchSplit = Envelope<"dev.asyncrunner.batch_split.v1", "batch_split", BatchSplitData>;

export interface SaveRequestedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
}

/** Somebody asked for a checkpoint now; each checkpointer saves one at the next safe point. */
export type SaveRequested = Envelope<"dev.asyncrunner.save_requested.v1", "save_requested", SaveRequestedData>;

export interface RunPausedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
}

/** The run waits at a safe point, and trains no further until it is told to. */
export type RunPaused = Envelope<"dev.asyncrunner.run_paused.v1", "run_paused", RunPausedData>;

export interface RunContinuedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
  /** How long it waited, in seconds. */
  paused_s?: Float;
}

/** The run goes on after a pause. */
export type RunContinued = Envelope<"dev.asyncrunner.run_continued.v1", "run_continued", RunContinuedData>;

export interface LearningRateChangedData extends EventData {
  /** Why. */
  reason: string;
  /** Who: the subscriber's name, the function that asked, or what came from outside. */
  by?: string;
  /** The optimizer's name. */
  optimizer?: string;
  /** The learning rate of all its parameter groups from now on. */
  lr: Float;
  /** What the first group had, if that was on the host. */
  before?: Float | null;
}

/**
 * Somebody set an optimizer's learning rate; published when it holds.
 *
 * A schedule that computes the next rate from the last one goes on from here; one that computes it
 * from the iteration sets its own again.
 */
export type LearningRateChanged = Envelope<"dev.asyncrunner.learning_rate_changed.v1", "learning_rate_changed", LearningRateChangedData>;

export interface StopCommandData extends EventData {
  /** Chosen by who asks; the same command again has the same, and is done once. */
  command_id: string;
  /** Who asks. */
  by?: string;
  /** Why. */
  reason?: string;
}

/** End the run after the current iteration, with a checkpoint. */
export type StopCommand = Envelope<"dev.asyncrunner.stop_command.v1", "stop_command", StopCommandData>;

export interface PauseCommandData extends EventData {
  /** Chosen by who asks; the same command again has the same, and is done once. */
  command_id: string;
  /** Who asks. */
  by?: string;
  /** Why. */
  reason?: string;
}

/** Train no further until told to, at the next safe point. */
export type PauseCommand = Envelope<"dev.asyncrunner.pause_command.v1", "pause_command", PauseCommandData>;

export interface ResumeCommandData extends EventData {
  /** Chosen by who asks; the same command again has the same, and is done once. */
  command_id: string;
  /** Who asks. */
  by?: string;
  /** Why. */
  reason?: string;
}

/** Go on after a pause. */
export type ResumeCommand = Envelope<"dev.asyncrunner.resume_command.v1", "resume_command", ResumeCommandData>;

export interface CheckpointCommandData extends EventData {
  /** Chosen by who asks; the same command again has the same, and is done once. */
  command_id: string;
  /** Who asks. */
  by?: string;
  /** Why. */
  reason?: string;
}

/** Save a checkpoint at the next safe point. */
export type CheckpointCommand = Envelope<"dev.asyncrunner.checkpoint_command.v1", "checkpoint_command", CheckpointCommandData>;

export interface SetLearningRateCommandData extends EventData {
  /** Chosen by who asks; the same command again has the same, and is done once. */
  command_id: string;
  /** Who asks. */
  by?: string;
  /** Why. */
  reason?: string;
  /** The learning rate. */
  lr: number | "NaN" | "Infinity" | "-Infinity";
  /** The optimizer's name, if there are several. */
  optimizer?: string | null;
}

/** Set the learning rate of an optimizer's parameter groups, at the next safe point. */
export type SetLearningRateCommand = Envelope<"dev.asyncrunner.set_learning_rate_command.v1", "set_learning_rate_command", SetLearningRateCommandData>;

export interface ThroughputReadyData extends EventData {
  /** The iterations that the speeds are of; `iter` is the last of them. */
  iters: number;
  /** The seconds that they took. */
  seconds: Float;
  /** Iterations a second. */
  iters_per_s: Float;
  /** Samples a second of this process, if batches have a size. */
  samples_per_s?: Float | null;
  /** Tokens a second of this process, if they are counted. */
  tokens_per_s?: Float | null;
  /** Floating-point operations a second of this process, if those of an iteration are known. */
  flops_per_s?: Float | null;
  /** Model FLOPs utilisation: their share of what the device could do, if that is known. */
  mfu?: Float | null;
  /** What tensors take of the device's memory; on the CPU, what the process takes. */
  memory_bytes?: number | null;
  /** The most that this process has taken so far. */
  memory_peak_bytes?: number | null;
  /** What the process holds of the device's memory, to use it again. */
  memory_reserved_bytes?: number | null;
}

/** How fast training was over the last iterations, without validations, and what it needed. */
export type ThroughputReady = Envelope<"dev.asyncrunner.throughput_ready.v1", "throughput_ready", ThroughputReadyData>;

export interface NormsReadyData extends EventData {
  /** The optimizer that was about to step. */
  optimizer?: string;
  /** The norm of all its gradients together. */
  gradient: Float;
  /** The norm of all its parameters together. */
  weight: Float;
  /** The norm of each gradient, by the parameter's name. */
  gradients?: Record<string, Float>;
  /** The norm of each parameter that has a gradient. */
  weights?: Record<string, Float>;
}

/**
 * The norms of gradients and weights at an optimizer step are on the host, perhaps later.
 *
 * They are those of `iter`, as they were when the optimizer was about to step.
 */
export type NormsReady = Envelope<"dev.asyncrunner.norms_ready.v1", "norms_ready", NormsReadyData>;

export interface HistogramsReadyData extends EventData {
  /** The optimizer that was about to step. */
  optimizer?: string;
  /** Of each gradient, by the parameter's name. */
  gradients?: Record<string, Histogram>;
  /** Of each parameter that has a gradient. */
  weights?: Record<string, Histogram>;
}

/**
 * Histograms at an optimizer step are on the host, perhaps some iterations later.
 *
 * They are those of `iter`, as they were when the optimizer was about to step.
 */
export type HistogramsReady = Envelope<"dev.asyncrunner.histograms_ready.v1", "histograms_ready", HistogramsReadyData>;

export interface ImageSavedData extends EventData {
  /** Where it is: a PNG file. */
  path: string;
  /** What it is of; all pictures with this tag are one series. */
  tag: string;
  /** Which batch it is of, if it is of one. */
  batch_idx?: number | null;
}

/**
 * A picture of a batch or a prediction is in a file, perhaps some iterations later.
 *
 * It is of `iter`, in which the batch was seen.
 */
export type ImageSaved = Envelope<"dev.asyncrunner.image_saved.v1", "image_saved", ImageSavedData>;

export interface TraceSavedData extends EventData {
  /** Where it is. */
  path: string;
  /** The iterations in it; `iter` is the last of them. */
  iters: number;
}

/** A profile of some iterations is in a file, for Perfetto, Chrome or TensorBoard. */
export type TraceSaved = Envelope<"dev.asyncrunner.trace_saved.v1", "trace_saved", TraceSavedData>;

/** Any event that this version knows; a newer writer may have others, and more fields. */
export type AnyEvent =
  | BeforeRun
  | AfterLoadCheckpoint
  | BeforeTrain
  | BeforeTrainEpoch
  | BeforeTrainIter
  | AfterTrainIter
  | AfterTrainEpoch
  | BeforeVal
  | BeforeValEpoch
  | BeforeValIter
  | AfterValIter
  | AfterValEpoch
  | AfterVal
  | BeforeSaveCheckpoint
  | AfterTrain
  | BeforeTest
  | BeforeTestEpoch
  | BeforeTestIter
  | AfterTestIter
  | AfterTestEpoch
  | AfterTest
  | AfterRun
  | BeforeBackward
  | AfterBackward
  | BeforeOptimizerStep
  | AfterOptimizerStep
  | ModuleForward
  | ModuleBackward
  | ModuleMeasured
  | MetricsReady
  | StepFailed
  | HostWaited
  | RunFailed
  | RunInterrupted
  | CheckpointSaved
  | CheckpointFailed
  | CheckpointSkipped
  | CheckpointRejected
  | WeightsLoaded
  | RunResumed
  | ResumeInexact
  | SubscriberFailed
  | SubscriberSlow
  | EventsDropped
  | StopRequested
  | EpochEndRequested
  | StepSkipped
  | BatchSkipped
  | BatchSplit
  | SaveRequested
  | RunPaused
  | RunContinued
  | LearningRateChanged
  | StopCommand
  | PauseCommand
  | ResumeCommand
  | CheckpointCommand
  | SetLearningRateCommand
  | ThroughputReady
  | NormsReady
  | HistogramsReady
  | ImageSaved
  | TraceSaved;
