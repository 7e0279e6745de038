"""The words of other libraries for arguments, and what they are called here."""

__all__ = ["translate"]


def translate(call: str, word: str, names: tuple[str, ...]) -> str | None:
    """Say what another library's word is called here, or return None if unknown."""
    plain = word.lower().replace("-", "_")
    for words, candidates in _SYNONYMS.items():
        if plain in words.split():
            for name in candidates.split():
                if name in names:
                    return f"here it is called `{name}`."
    for words, told in (_OF_CURVES if call in _CURVES else _ELSEWHERE).items():
        if plain in words.split():
            return told
    if call == "fit" and plain in _OF_TRAIN:
        return f"`train`, which takes the arguments of `fit`, has `{plain}`."
    return None


_SYNONYMS = {
    "lr step_size stepsize eta rate alpha learningrate learning_rates init_value": (
        "learning_rate rates initial_step"
    ),
    "epochs n_epochs max_epochs nepochs num_epoch epoch": "num_epochs",
    "steps n_steps nsteps max_steps num_iters n_iter niter iterations num_iterations "
    "max_iterations iters maxiter max_iter maxfev max_nfev nfev maxeval num_step "
    "num_updates": "num_steps max_iterations num_iterations max_rounds",
    "bs batch batchsize minibatch_size": "batch_size",
    "momentum beta mu": "decay",
    "beta1 beta_1": "b1",
    "beta2 beta_2": "b2",
    "epsilon eps_root": "eps",
    "p0 x0 init_params initial_params init guess initial_guess theta0 parameters "
    "param initial params0 start_params": "start params",
    "start": "params",
    "params": "start result",
    "xdata x_data xs": "x",
    "ydata y_data ys target targets": "y",
    "yerr y_err dy errors sigmas weights error std": "sigma",
    "xtol ftol gtol tol atol rtol rtols eps_abs eps_rel threshold": "tolerance",
    "fun func f fn objective criterion cost loss_function loss lossfn": (
        "loss_fn model function fn"
    ),
    "model_fn apply_fn function forward": "model",
    "method tx opt optim solver algorithm optimiser": "optimizer",
    "seed rng random_state random_seed prng_key rng_key": "key",
    "bounds limits domain box": "box bounds domain projection",
    "constraint constraints": "projection bounds",
    "verbose verbosity disp progress_bar show_progress bar tqdm": "progress",
    "callback callback_fn hooks": "callbacks",
    "ckpt ckpt_dir checkpoint_dir checkpoint_path checkpoints": "checkpoint",
    "log logger log_dir log_file logdir logfile": "log_to",
    "timeout max_time max_seconds time": "time_limit",
    "validation_data val_data eval_set eval_data valid val validate": "validation",
    "batches dataset train_data dataloader loader ds xy samples": "data",
    "every_k save_every interval freq frequency period": "every",
    "max_to_keep keep_last num_keep": "keep",
    "dir directory folder file filename root fname": "path",
    "n_starts num_restarts n_restarts restarts n_samples": "num_starts",
    "grid space param_grid parameters search_space config": "axes",
    "v vec tangent tangents": "vector direction",
    "h hidden layers layer_sizes features widths": "sizes",
    "weight_decay l2 lam lambda_ penalty": "weight",
    "history metrics log_metrics recorders": "record",
    "confidence alpha_level": "level",
    "abs_sigma": "absolute_sigma",
    "vary frozen": "fixed",
    "mesh_shape devices device": "mesh devices",
}
"""Words of others, and the arguments that they may stand for, the likeliest first."""

_ELSEWHERE = {
    "lr learning_rate step_size eta": (
        "the learning rate belongs to the optimizer, such as `phihat.adam(0.1)`."
    ),
    "weight_decay l2 l2_penalty ridge": (
        "put the penalty into the loss, `losses.with_l2(loss_fn, weight)`, or take an "
        "optimizer that has it, such as `optax.adamw`."
    ),
    "l1 clip grad_clip gradient_clip max_grad_norm clipnorm gradient_clip_val": (
        "put it before the optimizer, as in `optax.chain("
        "optax.clip_by_global_norm(1.0), phihat.adam(0.1))`."
    ),
    "betas": "here they are `b1` and `b2`.",
    "amsgrad maximize foreach fused nesterov": (
        "take the optimizer of optax that has it: any of them runs in `fit`."
    ),
    "x y inputs labels targets xdata ydata": (
        "pass both as the data: `(x, y)`, the fourth argument of a fit."
    ),
    "args kwargs": (
        "bind what the function takes besides, with `functools.partial`, or pass it as "
        "the data."
    ),
    "jac grad hess hessp gradient dfun": "derivatives are taken by jax.",
    "full_output": "the result holds all of it.",
    "shuffle": "pass `sampler=phihat.minibatches(batch_size, shuffle=...)`.",
    "patience early_stopping validation_split": (
        "early stopping is `train(..., validation=training.Validation(data, "
        "every=..., patience=...))`."
    ),
    "jit vmap": "compiling is what jax does: it needs no argument.",
    "device devices": "put the data and the params there, with `jax.device_put`.",
    "dtype precision": "the dtypes are those of the params and the data.",
    "n_jobs workers num_workers": "lanes run side by side: it needs no argument.",
    "sigma yerr": "give the loss weights, `losses.least_squares(model, weights=...)`.",
    "seed rng random_state": "nothing is random here.",
}
"""Words of others for what is no argument of the function that was called."""

_CURVES = ("fit_curve", "fit_curves")

_OF_CURVES = {
    "labels names index ids": (
        "give the curves as a dict, `{label: y}`, or as a DataFrame with a row for "
        "each curve."
    ),
    "args kwargs": "bind what the model takes besides, with `functools.partial`.",
    "jac": "derivatives are taken by jax.",
    "full_output": "the result holds all of it.",
    "check_finite": "it is `nan_policy`, with 'raise', 'omit' or 'propagate'.",
    "n_jobs workers num_workers": "curves run side by side: it needs no argument.",
}
"""The same, for those who fit curves."""

_OF_TRAIN = (
    "progress",
    "checkpoint",
    "time_limit",
    "callbacks",
    "log_to",
    "validation",
    "steps_per_chunk",
)
