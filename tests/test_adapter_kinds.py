"""Every kind of adapter that peft makes: merged it answers as peft's unmerged model does, or it is refused by name."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from valueshift.core.errors import ValueshiftError
from valueshift.harness_ext import adapters
from valueshift.harness_ext.encoder_decoder import EncoderDecoderScorer
from valueshift.harness_ext.models import load_config, load_model, load_tokenizer, save_model

ATTENTION = {"untied": ["q", "v"], "tied": ["q", "v"], "llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
EMBEDDING = {"untied": "embed_tokens", "tied": "embed_tokens", "llama": "embed_tokens", "gpt2": "wte"}
NORM = {"untied": "layer_norm", "tied": "layer_norm", "llama": "input_layernorm", "gpt2": "ln_1"}
FEED_FORWARD = {"untied": ["wo"], "tied": ["wo"], "llama": ["down_proj"], "gpt2": ["mlp.c_proj"]}

WHERE: dict[str, dict[str, Any]] = {
    "attention": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "bias": {"bias": "all"},
    "ranks": {"rank_pattern": {"q": 2, "q_proj": 2}, "alpha_pattern": {"v": 9}},
    "all linear": {"target_modules": "all-linear"},
    "embedding": {"target_modules": ["EMBEDDING"]},
    "embedding and attention": {"target_modules": ["EMBEDDING", "ATTENTION"]},
    "embedding, dora": {"target_modules": ["EMBEDDING"], "use_dora": True},
    "head": {"target_modules": ["lm_head"]},
    "head and embedding": {"target_modules": ["lm_head", "EMBEDDING"]},
    "saved head": {"modules_to_save": ["lm_head"]},
    "saved embedding": {"modules_to_save": ["EMBEDDING"]},
    "tokens": {"trainable_token_indices": {"EMBEDDING": [5, 6, 8]}},
}
"""Options of LoRA."""
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "shared": ("LoraConfig", {"r": 2, "target_modules": ["shared"]}),
    "repeated layers": ("LoraConfig", {"r": 2, "target_modules": ["ATTENTION"], "layer_replication": [[0, 2], [0, 2]]}),
    "ia3": ("IA3Config", {"target_modules": ["ATTENTION", "FEED"], "feedforward_modules": ["FEED"]}),
    "adalora": ("AdaLoraConfig", {"init_r": 3, "target_r": 2, "total_step": 9, "target_modules": ["ATTENTION"]}),
    "layer norm": ("LNTuningConfig", {"target_modules": ["NORM"]}),
    "trained tokens": ("TrainableTokensConfig", {"token_indices": [5, 6, 8]}),
    "ia3 of embeddings": ("LoraConfig", {"r": 2, "target_modules": ["EMBEDDING"], "modules_to_save": ["lm_head"]}),
    **{
        name: (f"{name}Config", {"target_modules": ["ATTENTION"], **options})
        for name, options in {
            "LoHa": {"r": 2},
            "LoKr": {"r": 2},
            "OFT": {"oft_block_size": 4},
            "BOFT": {"boft_block_size": 4},
            "Vera": {"r": 4},
            "FourierFT": {"n_frequency": 9},
            "HRA": {"r": 2},
            "VBLoRA": {"r": 2, "num_vectors": 8, "vector_length": 4},
            "Miss": {"r": 2},
            "RandLora": {"r": 2},
            "Road": {"group_size": 4},
            "Shira": {"r": 2},
            "C3A": {"block_size": 4},
        }.items()
    },
}
QUICK = [
    *(
        ("untied", name)
        for name in ("attention", "dora", "embedding", "head and embedding", "saved head", "tokens", "shared")
    ),
    *(("tied", name) for name in ("embedding", "head", "trained tokens")),
    *(("gpt2", name) for name in ("bias", "head and embedding")),
    ("llama", "repeated layers"),
]
"""One of each way in which an adapted layer shares its weights; the others take a minute."""
ALL = [(model, name) for model in ATTENTION for name in (*WHERE, *OTHERS)]


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """Factory of adapters with random weights, over a base, by their names here."""
    root = tmp_path_factory.mktemp("kinds")

    def make(model: str, config: Any) -> Path:
        folder = root / str(len(list(root.iterdir())))
        torch.manual_seed(0)
        tuned = get_peft_model(base(model), config)
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        tuned.save_pretrained(folder, save_embedding_layers=False)
        return folder

    def base(model: str) -> Any:
        return load_model(str(tiny_model(model)), family(model))

    make.base = base
    return make


def family(model: str) -> str:
    return "encoder-decoder" if model in ("untied", "tied") else "causal"


def config_named(model: str, name: str) -> Any:
    kind, options = (
        OTHERS[name] if name in OTHERS else ("LoraConfig", {"r": 2, "target_modules": ["ATTENTION"], **WHERE[name]})
    )
    names = {
        "ATTENTION": ATTENTION[model],
        "FEED": FEED_FORWARD[model],
        "NORM": [NORM[model]],
        "EMBEDDING": [EMBEDDING[model]],
    }

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [part for one in value for part in names.get(str(one), [one])]
        return {names.get(key, [key])[0]: inner for key, inner in value.items()} if isinstance(value, dict) else value

    task = "SEQ_2_SEQ_LM" if family(model) == "encoder-decoder" else "CAUSAL_LM"
    return getattr(peft, kind)(task_type=task, **{option: filled(value) for option, value in options.items()})


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7, 8, 9, 1]])
    start = {"decoder_input_ids": torch.tensor([[0, 8, 5]])} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **start).logits


def check(made: Any, model: str, name: str) -> None:
    try:
        folder = made(model, config_named(model, name))
    except (TypeError, ValueError, NotImplementedError) as error:
        pytest.skip(f"peft has no such adapter for this model: {error}")
    wanted = logits(PeftModel.from_pretrained(made.base(model), folder).eval())
    found = logits(load_model(str(folder), family(model)))
    # float32 keeps 1e-7 of a sum; merged, sums of each layer are taken in another order
    assert (found - wanted).abs().max() < 1e-4 * (wanted.max() - wanted.min())


@pytest.mark.parametrize(("model", "name"), QUICK)
def test_merged_it_answers_as_unmerged(made, model, name):
    check(made, model, name)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name"), [case for case in ALL if case not in QUICK])
def test_merged_all_kinds_answer_as_unmerged(made, model, name):
    check(made, model, name)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PromptTuningConfig", {"num_virtual_tokens": 4}),
        ("PrefixTuningConfig", {"num_virtual_tokens": 4}),
        ("PromptEncoderConfig", {"num_virtual_tokens": 4}),
    ],
)
def test_what_is_no_change_of_weights_is_refused_by_name_before_its_base_is_loaded(made, monkeypatch, kind, options):
    config = getattr(peft, kind)(task_type="SEQ_2_SEQ_LM", **options)
    folder = made("untied", config)
    monkeypatch.setattr("valueshift.harness_ext.models._from_pretrained", lambda *_: pytest.fail("weights are loaded"))
    for load in (load_config, load_model):
        with pytest.raises(
            ValueshiftError, match=f"is of kind {config.peft_type.value}, which is no change of the model's weights"
        ):
            load(str(folder))


def test_what_cannot_be_merged_says_so(made):
    folder = made("untied", peft.LoraConfig(r=2, target_modules=["q"], lora_bias=True, task_type="SEQ_2_SEQ_LM"))
    with pytest.raises(ValueshiftError, match="or merge it: Impossible to merge LoRA with `lora_bias=True`"):
        load_model(str(folder))


def test_a_merge_that_changes_the_answers_is_refused(made, monkeypatch):
    """As peft's merge into an embedding that encoder and decoder share does."""
    folder = made("untied", config_named("untied", "embedding"))
    monkeypatch.setattr(adapters, "_unshare", lambda tuned: None)
    with pytest.raises(ValueshiftError, match="gives other answers when it is merged"):
        load_model(str(folder))


@pytest.mark.parametrize(("rename", "fault"), [("lora_A", "lacks"), ("more", "has besides")])
def test_an_adapter_of_another_model_is_refused(made, rename, fault):
    """peft would leave what is missing as it was drawn, and say so in a warning."""
    from safetensors.torch import load_file, save_file

    folder = made("untied", config_named("untied", "attention"))
    weights = load_file(folder / "adapter_model.safetensors")
    first = min(weights)
    weights[first.replace("lora_A", "lora_Z") if rename == "lora_A" else f"{first}.more"] = weights[first].clone()
    if rename == "lora_A":
        del weights[first]
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(ValueshiftError, match=f"does not fit .*: its file {fault} "):
        load_model(str(folder))


def test_a_merged_model_whose_embeddings_moved_apart_is_saved_as_it_is(made, tiny_model, tmp_path):
    model = load_model(str(made("untied", config_named("untied", "embedding"))))
    tokenizer = load_tokenizer(str(tiny_model("untied")))
    save_model(model, tokenizer, tmp_path / "saved")
    assert torch.equal(logits(load_model(str(tmp_path / "saved"))), logits(model))


def test_an_adapter_over_itself_is_refused(made):
    folder = made("untied", config_named("untied", "attention"))
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "."}))
    with pytest.raises(ValueshiftError, match="over itself"):
        load_config(str(folder))


def test_a_head_that_is_adapted_and_not_merged_is_not_scored_by_its_base(made, tiny_model):
    """As `--model hf-encdec --model_args peft=` has it: the scorer reads the head's weights."""
    tokenizer = load_tokenizer(str(tiny_model("untied")))
    tuned = PeftModel.from_pretrained(made.base("untied"), made("untied", config_named("untied", "head"))).eval()
    with pytest.raises(ValueshiftError, match="the output head of this model is adapted"):
        EncoderDecoderScorer(tuned, tokenizer)
    EncoderDecoderScorer(load_model(str(made("untied", config_named("untied", "head")))), tokenizer)
