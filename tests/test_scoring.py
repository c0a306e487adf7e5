"""Facts about scoring: each family against slow, independent computation; invariances; refusals."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tolerances import CONTRAST, LOGPROB
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import MASK, Probe, probe_set
from valueshift.core.scores import p_first
from valueshift.core.sentinels import resolve_sentinels
from valueshift.harness_ext import encoder_decoder, probing, scoring
from valueshift.harness_ext.causal import CausalScorer
from valueshift.harness_ext.encoder_decoder import EncoderDecoderScorer
from valueshift.harness_ext.formats import EncoderDecoderIds, masked_ids, piece_ids
from valueshift.harness_ext.masked import MaskedScorer
from valueshift.harness_ext.models import load_model, load_tokenizer
from valueshift.harness_ext.scoring import OptionScore, batches, halving, score_probes

TinyModel = Callable[[str], Path]
CAUSAL = ("gpt2", "llama")
MASKED = ("bert", "xlm-roberta", "deberta")
FAMILIES = ("untied", "tied", "appended", *CAUSAL, *MASKED)
POSITIONS = 128


@pytest.fixture(scope="module")
def scorers(tiny_model: TinyModel) -> Callable[..., Any]:
    """A scorer of a kind of checkpoint; models are loaded once."""
    loaded: dict[str, tuple[Any, Any]] = {}

    def make(name: str, **options: Any) -> Any:
        if name not in loaded:
            path = str(tiny_model(name))
            loaded[name] = load_model(path, _format(name)), load_tokenizer(path)
        return _SCORERS[_format(name)](*loaded[name], **options)

    return make


_SCORERS: dict[str, Any] = {
    "encoder-decoder": EncoderDecoderScorer,
    "causal": CausalScorer,
    "masked": MaskedScorer,
}


def _format(name: str) -> str:
    return "causal" if name in CAUSAL else "masked" if name in MASKED else "encoder-decoder"


@pytest.fixture(scope="module")
def probes() -> list[Probe]:
    """Some probes of each of the 16 languages."""
    packaged = probe_set("wvs")
    assert len(packaged.languages) == 16
    return [probe for language in packaged.languages for probe in packaged.probes(language)[::70]]


def a_probe(text: str, first: str = "wichtig", second: str = "unwichtig", language: str = "de") -> Probe:
    return Probe(probe_set="x", question="Q1", category=1, language=language, text=text, first=first, second=second)


GLUED = [
    a_probe(f"Sie ist un{MASK} für mich.", "fair", "wichtig"),
    a_probe(f"{MASK} ist die Familie.", "Wichtig", "Unwichtig"),
    a_probe(f"Das finde ich {MASK}er als alles.", "wichtig", "schlecht"),
]


# Independent computation -----------------------------------------------------------------------------------------------


def direct_encoder_decoder(scorer: Any, probe: Probe) -> list[tuple[float, float, bool]]:
    """Per option: log-probability given the sentinel, of the closing sentinel, greediness. One forward each, all logits."""
    tokenizer, model = scorer.tokenizer, scorer.model
    zero, one = resolve_sentinels(tokenizer).ids[:2]
    before = tokenizer(probe.prefix.rstrip(), add_special_tokens=False)["input_ids"]
    after = piece_ids(tokenizer, probe.suffix, bool(probe.suffix) and not probe.suffix[0].isspace())
    encoder = torch.tensor([[*before, zero, *after, tokenizer.eos_token_id]])
    glued = bool(probe.prefix) and not probe.prefix[-1].isspace()
    found = []
    for option in (probe.first, probe.second):
        ids = piece_ids(tokenizer, option, glued)
        with torch.inference_mode():
            logits = model(input_ids=encoder, decoder_input_ids=torch.tensor([[0, zero, *ids]])).logits[0]
        steps = [logits[1 + place].log_softmax(-1)[token].item() for place, token in enumerate((*ids, one))]
        greedy = all(logits[1 + place].argmax().item() == token for place, token in enumerate(ids))
        found.append((sum(steps[:-1]), steps[-1], greedy))
    return found


def direct_causal(scorer: Any, probe: Probe) -> list[float]:
    """Log-probability of what the tokenizer splits after the prefix, by one forward over the whole text, all logits."""
    tokenizer, model = scorer.tokenizer, scorer.model
    prefix, found = probe.prefix.rstrip(), []
    for option in (probe.first, probe.second):
        if prefix:
            context = tokenizer(prefix)["input_ids"]
            text = tokenizer(probe.prefix + option + probe.suffix)["input_ids"]
            ids = [*context, *text[len(context) :]]
        else:
            context = [tokenizer.bos_token_id]
            ids = [*context, *tokenizer(option + probe.suffix, add_special_tokens=False)["input_ids"]]
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(logits[at - 1, ids[at]].item() for at in range(len(context), len(ids))))
    return found


def direct_masked(scorer: Any, probe: Probe) -> list[float]:
    """Pseudo-log-likelihood, word by word and left to right, from the pieces' own text: no offsets, no word ids."""
    tokenizer, model, found = scorer.tokenizer, scorer.model, []
    normalise = tokenizer.backend_tokenizer.normalizer.normalize_str
    prefix = normalise(probe.prefix.rstrip())
    for option in (probe.first, probe.second):
        ids = tokenizer(probe.prefix + option + probe.suffix)["input_ids"]
        text = normalise(probe.prefix + option + probe.suffix)
        pieces = tokenizer.convert_ids_to_tokens(ids)
        wordpiece = any(piece.startswith("##") for piece in tokenizer.get_vocab())
        begin, end = len(prefix), len(normalise(probe.prefix + option))
        if not wordpiece:  # the text as SentencePiece sees it: a mark before every word
            begin, end = begin + 1 if begin else 0, end + 1
        cursor, word, words, mine = 0, 0, [], []
        for piece in pieces:
            if piece in tokenizer.all_special_tokens:
                words.append(-1)
                mine.append(False)
                continue
            if wordpiece:
                bare = piece.removeprefix("##")
                start = text.index(bare, cursor)
                word += not piece.startswith("##")
            else:
                bare, start = piece, cursor
                assert ("▁" + text.replace(" ", "▁"))[cursor : cursor + len(piece)] == piece
                word += piece.startswith("▁")
            cursor = start + len(bare)
            words.append(word)
            mine.append(start < end and cursor > begin)
        total = 0.0
        for at in [place for place, own in enumerate(mine) if own]:
            hidden = [
                tokenizer.mask_token_id if words[place] == words[at] and place >= at else token
                for place, token in enumerate(ids)
            ]
            with torch.inference_mode():
                logits = model(torch.tensor([hidden])).logits[0, at]
            total += logits.log_softmax(-1)[ids[at]].item()
        found.append(total)
    return found


@pytest.mark.parametrize("name", ["untied", "tied", "appended"])
def test_encoder_decoder_equals_direct_computation(scorers: Any, probes: list[Probe], name: str) -> None:
    scorer = scorers(name, closing=True)
    scored = score_probes(scorer, [*probes, *GLUED], quiet=True)
    for probe, pair in zip([*probes, *GLUED], scored, strict=True):
        for found, (logprob, closing, greedy) in zip(pair, direct_encoder_decoder(scorer, probe), strict=True):
            assert found.logprob == pytest.approx(logprob, **LOGPROB)
            assert found.closing == pytest.approx(closing, **LOGPROB)
            assert found.greedy == greedy


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_differences_alone_are_exact_too(scorers: Any, probes: list[Probe], name: str) -> None:
    """Without log-probabilities the normaliser of the shared position is left out; it cancels."""
    whole = score_probes(scorers(name), probes, quiet=True)
    quick = score_probes(scorers(name, log_probs=False), probes, quiet=True)
    for (first, second), (a, b) in zip(whole, quick, strict=True):
        assert a.logprob - b.logprob == pytest.approx(first.logprob - second.logprob, **CONTRAST)
        assert (a.greedy, a.closing) == (None, None)
    assert abs(whole[0][0].logprob - quick[0][0].logprob) > 0.1


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_equals_direct_computation(scorers: Any, probes: list[Probe], name: str) -> None:
    scorer, asked = scorers(name), [*probes, *GLUED[1:]]
    for probe, pair in zip(asked, score_probes(scorer, asked, quiet=True), strict=True):
        assert [score.logprob for score in pair] == pytest.approx(direct_causal(scorer, probe), **LOGPROB)


def _has_unknown(tokenizer: Any, probe: Probe) -> bool:
    """Whether a piece is not known, so that its text cannot be told from it: DeBERTa's tokenizer keeps zero-width joiners."""
    return any(tokenizer.unk_token_id in tokenizer(probe.filled(pole))["input_ids"] for pole in ("first", "second"))


@pytest.mark.parametrize("name", MASKED)
def test_masked_equals_a_slow_loop_over_words(scorers: Any, probes: list[Probe], name: str) -> None:
    scorer = scorers(name)
    known = [probe for probe in probes if not _has_unknown(scorer.tokenizer, probe)]
    assert {probe.language for probe in known} >= {probe.language for probe in probes} - {"fa"}
    asked = [*known, *GLUED]
    scored = score_probes(scorer, asked, quiet=True)
    for probe, pair in zip(asked, scored, strict=True):
        assert [score.logprob for score in pair] == pytest.approx(direct_masked(scorer, probe), **LOGPROB)
    assert max(score.tokens for pair in scored for score in pair) > 3


@pytest.mark.parametrize("name", FAMILIES)
def test_batches_padding_and_order_change_nothing(scorers: Any, probes: list[Probe], name: str) -> None:
    scorer = scorers(name)
    alone = [scorer.score([scorer.ids(probe)])[0] for probe in probes]
    for size, order in ((None, 1), (7, 1), (3, -1)):
        together = score_probes(scorer, probes[::order], size, quiet=True)[::order]
        for pair, expected in zip(together, alone, strict=True):
            for found, one in zip(pair, expected, strict=True):
                assert found.logprob == pytest.approx(one.logprob, **LOGPROB)
                assert (found.tokens, found.greedy) == (one.tokens, one.greedy)


@pytest.mark.parametrize("name", FAMILIES)
def test_swapped_options_mirror_the_answer(scorers: Any, probes: list[Probe], name: str) -> None:
    scorer = scorers(name)
    swapped = [probe.model_copy(update={"first": probe.second, "second": probe.first}) for probe in probes]
    for probe, other in zip(probes, swapped, strict=True):
        first, second = scorer.score([scorer.ids(probe)])[0]
        b, a = scorer.score([scorer.ids(other)])[0]
        assert (a.logprob, b.logprob) == pytest.approx((first.logprob, second.logprob), **LOGPROB)
        mirrored = p_first(second.logprob, first.logprob)
        assert p_first(first.logprob, second.logprob) == pytest.approx(1 - mirrored, abs=1e-12)


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED])
def test_a_constant_added_to_all_logits_changes_nothing(scorers: Any, probes: list[Probe], name: str) -> None:
    scorer = scorers(name)
    before = score_probes(scorer, probes, quiet=True)

    def shift(module: Any, inputs: Any, output: Any) -> Any:
        output.logits = output.logits + 7.5
        return output

    hook = scorer.model.register_forward_hook(shift)
    try:
        after = score_probes(scorer, probes, quiet=True)
    finally:
        hook.remove()
    for pair, expected in zip(after, before, strict=True):
        assert [s.logprob for s in pair] == pytest.approx([s.logprob for s in expected], **LOGPROB)


@pytest.mark.parametrize("name", ["untied", "tied", "appended"])
def test_a_direction_added_to_the_whole_head_changes_nothing(tiny_model: Any, probes: list[Probe], name: str) -> None:
    """T5's head has no bias: the same vector on every row adds the same to all logits of a position."""
    path = str(tiny_model(name))
    model = load_model(path)
    scorer = EncoderDecoderScorer(model, load_tokenizer(path), closing=True)
    before = score_probes(scorer, probes, quiet=True)
    head = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=False)
    with torch.no_grad():
        head.weight.copy_(model.lm_head.weight + 0.1)
    scorer.head = model.lm_head = head
    for pair, expected in zip(score_probes(scorer, probes, quiet=True), before, strict=True):
        for found, one in zip(pair, expected, strict=True):
            assert found.logprob == pytest.approx(one.logprob, **LOGPROB)
            assert found.closing == pytest.approx(one.closing, **LOGPROB)


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_the_vocabulary_in_blocks_is_the_vocabulary_at_once(
    scorers: Any, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last block is a single token."""
    scorer = scorers("untied")
    width, size = scorer.head.weight.shape[1], scorer.head.weight.shape[0]
    states = torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * 3
    logits = scorer.head(states).detach()
    monkeypatch.setitem(encoder_decoder._BLOCK_OF_LOGITS, "cpu", rows * (size // 2))
    assert size % (size // 2) in (0, 1)
    normalisers, best = scorer._normalisers(states)
    assert torch.equal(best, logits.argmax(1))
    assert normalisers.tolist() == pytest.approx(logits.logsumexp(1).tolist(), **LOGPROB)


def test_greedy_is_the_most_probable_token_indeed(scorers: Any, probes: list[Probe]) -> None:
    """Options built from what the model would say itself, one and two tokens long, beside others."""
    scorer = scorers("untied")
    encoder = scorer.ids(probes[0]).encoder
    start = [0, scorer.sentinels.ids[0]]
    best: list[int] = []
    for _ in range(2):
        with torch.inference_mode():
            logits = scorer.model(
                input_ids=torch.tensor([encoder]), decoder_input_ids=torch.tensor([[*start, *best]])
            ).logits
        best.append(int(logits[0, -1].argmax()))
    other = best[1] + 1 if best[1] + 1 != best[0] else best[1] + 2
    (short, long), (wrong, half) = scorer.score(
        [
            EncoderDecoderIds(encoder, (best[0],), tuple(best)),
            EncoderDecoderIds(encoder, (other,), (best[0], other)),
        ]
    )
    assert [score.greedy for score in (short, long, wrong, half)] == [True, True, False, False]


@pytest.mark.parametrize("name", FAMILIES)
def test_nan_logits_are_nan_scores_and_refused_where_nothing_else_is_found(
    tiny_model: Any, probes: list[Probe], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tiny_model(name))
    model = load_model(path, _format(name))
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(math.nan)
    scorer = _SCORERS[_format(name)](model, load_tokenizer(path))
    scores = score_probes(scorer, probes[:2], quiet=True)
    assert all(math.isnan(option.logprob) for pair in scores for option in pair)
    monkeypatch.setattr(probing, "load_model", lambda *_, **__: model)
    with pytest.raises(
        ValueshiftError, match="the model gives NaN for every question in de; load it in float32 or bfloat16"
    ):
        probing.ask(path, probe_set("wvs"), ("de",), tmp_path, probing.Asking(limit=2, device="cpu"))


def test_float16_is_refused_before_it_overflows(tiny_model: Any) -> None:
    path = str(tiny_model("untied"))
    with pytest.raises(ValueshiftError, match="T5-family models overflow in float16"):
        EncoderDecoderScorer(load_model(path, dtype=torch.float16), load_tokenizer(path))


def test_bfloat16_is_near_float32(tiny_model: Any, scorers: Any, probes: list[Probe]) -> None:
    path = str(tiny_model("untied"))
    half = EncoderDecoderScorer(load_model(path, dtype=torch.bfloat16), load_tokenizer(path))
    exact = score_probes(scorers("untied"), probes, quiet=True)
    rough = score_probes(half, probes, quiet=True)
    errors = [
        abs(a.logprob - b.logprob) / abs(a.logprob)
        for pair, other in zip(exact, rough, strict=True)
        for a, b in zip(pair, other, strict=True)
    ]
    assert 1e-5 < max(errors) < 0.1


def test_an_encoder_decoder_model_without_sentinels_is_refused(tiny_model: Any) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    small = {"vocab_size": 2002, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    bart = BartForConditionalGeneration(BartConfig(**small)).eval()
    with pytest.raises(ValueshiftError, match="has no sentinel <extra_id_0>; cloze probes need an encoder-decoder"):
        EncoderDecoderScorer(bart, load_tokenizer(str(tiny_model("xlm-roberta"))))


def test_a_causal_tokenizer_cannot_ask_a_masked_model(tiny_model: Any, scorers: Any) -> None:
    with pytest.raises(ValueshiftError, match="has no mask token; masked scoring needs a model such as BERT"):
        MaskedScorer(scorers("bert").model, load_tokenizer(str(tiny_model("llama"))))


@pytest.mark.parametrize("name", ["untied", "llama", *MASKED])
def test_an_option_the_tokenizer_does_not_know_is_refused(scorers: Any, name: str) -> None:
    with pytest.raises(ValueshiftError, match="x de Q1: the tokenizer does not know option '𒀀'"):
        scorers(name).ids(a_probe(f"Das ist {MASK} für mich.", first="𒀀"))


@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_an_option_that_comes_to_nothing_is_refused(scorers: Any, name: str) -> None:
    with pytest.raises(ValueshiftError, match="x de Q1: the tokenizer turns option '.*' into nothing"):
        scorers(name).ids(a_probe(f"Das ist {MASK} für mich.", first="\u200d" if name == "bert" else "\u200b"))


def test_options_that_come_to_the_same_tokens_are_refused(scorers: Any) -> None:
    for name in ("untied", "xlm-roberta"):
        with pytest.raises(ValueshiftError, match="into the same tokens; change an option"):
            scorers(name).ids(a_probe(f"Das ist {MASK} für mich.", first="ﬁt", second="fit"))


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED])
def test_what_the_model_would_see_cut_is_refused(scorers: Any, name: str) -> None:
    long = a_probe("Das ist so " * 100 + f"{MASK} für mich.")
    with pytest.raises(ValueshiftError, match=r"x de Q1 has \d+ tokens, but the model takes \d+ and would see it cut"):
        score_probes(scorers(name), [long], quiet=True)


def test_relative_positions_have_no_limit(scorers: Any) -> None:
    long = a_probe("Das ist so " * 300 + f"{MASK} für mich.")
    (first, second), *_ = score_probes(scorers("untied"), [long], quiet=True)
    assert math.isfinite(first.logprob) and math.isfinite(second.logprob)


def test_roberta_counts_its_positions_from_the_padding_on(scorers: Any) -> None:
    model = scorers("xlm-roberta").model
    assert scoring.positions(model) == POSITIONS - 2
    model(torch.full((1, POSITIONS - 2), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, POSITIONS - 1), 5))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch(
    scorers: Any,
    probes: list[Probe],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = scorers("untied")
    plain = score_probes(scorer, probes[:9], quiet=True)
    score, sizes = scorer.score, []

    def small(batch: Sequence[Any]) -> Any:
        if len(batch) > 3:
            raise error
        sizes.append(len(batch))
        return score(batch)

    monkeypatch.setattr(scorer, "score", small)
    halved = score_probes(scorer, probes[:9], quiet=True)
    assert sizes == [2, 2, 2, 3]
    assert "out of memory at 9 probes; going on with batches of 4" in caplog.text
    for pair, expected in zip(halved, plain, strict=True):
        assert [s.logprob for s in pair] == pytest.approx([s.logprob for s in expected], **LOGPROB)


def test_memory_that_does_not_hold_one_probe_is_said() -> None:
    def work(_: list[int]) -> None:
        torch.empty(1 << 60)

    with pytest.raises(ValueshiftError, match="memory does not hold one probe of this model"):
        halving(work, [0, 1])
    with pytest.raises(RuntimeError, match="shape"):
        halving(lambda _: torch.ones(2).view(3), [0, 1])


def test_batches_hold_everything_once_and_keep_to_the_budget() -> None:
    costs = [3, 9, 4, 4, 20, 1, 7, 2]
    for size, budget in ((3, None), (8, 20), (2, 8), (1, 1)):
        made = list(batches(costs, size, budget))
        assert sorted(index for batch in made for index in batch) == list(range(len(costs)))
        for batch in made:
            assert len(batch) <= size
            assert budget is None or len(batch) == 1 or max(costs[i] for i in batch) * len(batch) <= budget


def test_identical_sequences_run_once(scorers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two options of one token each see the same masked statement."""
    scorer, rows = scorers("bert"), []
    one, other = [piece for piece in sorted(scorer.tokenizer.get_vocab()) if piece.isascii() and piece.isalpha()][-2:]
    probe = a_probe(f"Das ist {MASK} für mich.", one, other)
    assert masked_ids(probe, scorer.tokenizer).scored == (1, 1)
    hook = scorer.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    score_probes(scorer, [probe], quiet=True)
    hook.remove()
    assert rows == [1]


def test_a_masked_model_without_its_head_is_refused(tiny_model: Any, tmp_path: Path) -> None:
    from transformers import BertModel

    path = tiny_model("bert")
    BertModel.from_pretrained(path).save_pretrained(tmp_path)
    with pytest.raises(ValueshiftError, match=r"has no weights for cls\.predictions.* which would be random"):
        load_model(str(tmp_path), "masked")


def test_debertas_head_is_the_one_that_was_saved(tiny_model: Any) -> None:
    from safetensors.torch import load_file

    path = tiny_model("deberta")
    model, saved = load_model(str(path), "masked"), load_file(path / "model.safetensors")
    head = {name: tensor for name, tensor in saved.items() if name.startswith("lm_predictions.")}
    assert len(head) == 5
    for name, tensor in {**head, "deberta.embeddings.word_embeddings.weight": None}.items():
        expected = saved[name] if tensor is None else tensor
        assert torch.equal(model.state_dict()[name], expected)


def test_weights_may_lie_on_the_disk(tiny_model: Any, scorers: Any, probes: list[Probe], tmp_path: Path) -> None:
    """As with a device map: modules without weights of their own, filled when they run."""
    from accelerate import disk_offload

    path = str(tiny_model("untied"))
    model = disk_offload(load_model(path), str(tmp_path), execution_device=torch.device("cpu"))
    assert model.lm_head.weight.device.type == "meta"
    scorer = EncoderDecoderScorer(model, load_tokenizer(path), device=torch.device("cpu"))
    for pair, expected in zip(
        score_probes(scorer, probes[:8], quiet=True),
        score_probes(scorers("untied"), probes[:8], quiet=True),
        strict=True,
    ):
        assert [s.logprob for s in pair] == pytest.approx([s.logprob for s in expected], **LOGPROB)


def test_a_score_is_a_sum_with_its_number_of_tokens() -> None:
    assert scoring.summed([(-1.0, True), (-2.5, False)]) == OptionScore(-3.5, 2, greedy=False)
    assert scoring.summed([(0.25, None), (-1.0, True)]) == OptionScore(-0.75, 2, greedy=None)
