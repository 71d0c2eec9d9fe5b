"""Our steps in PyTorch. Functions are those of `tensorflow_backend`."""

import torch


def set_up(threads, tf32):
    """Settles how PyTorch computes."""
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.manual_seed(0)


def describe():
    """Names the device and the versions."""
    facts = {"torch": torch.__version__}
    if not torch.cuda.is_available():
        return {**facts, "kind": "cpu", "device": "cpu"}
    return {
        **facts,
        "kind": "gpu",
        "device": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def wait(x):
    """Waits until all that has been asked for is computed."""
    if x.is_cuda:
        torch.cuda.synchronize()


def free_memory():
    """Gives back what no tensor uses."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def infer(model, images, compiled):
    """Builds a forward pass; it is not compiled."""

    @torch.inference_mode()
    def forward():
        return model(images, training=False)

    return forward


def train(model, optimizer, loss_of, images, labels, compiled):
    """Builds a training step; it is not compiled."""
    variables = model.trainable_variables

    def step():
        model.zero_grad()
        loss = loss_of(labels, model(images, training=True))
        loss.backward()
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in variables], variables)
        return loss.detach()

    return step
