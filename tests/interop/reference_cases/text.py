"""Encoders of text."""

import functools

from .common import SMALL, Case, texts, tokens_and_pooled


def bert(t, **changes):
    config = t.BertConfig(vocab_size=50, max_position_embeddings=20, **(SMALL | changes))
    return Case(t.BertModel(config), texts(), tokens_and_pooled("text"))


def bert_without_pooler(t):
    config = t.BertConfig(vocab_size=50, max_position_embeddings=20, **SMALL)
    model = t.BertForMaskedLM(config)
    return Case(
        model, texts(), lambda out: {"text/tokens": out.hidden_states[-1]}, {"output_hidden_states": True}
    )


def roberta(t, **changes):
    config = t.RobertaConfig(vocab_size=50, max_position_embeddings=22, **(SMALL | changes))
    return Case(t.RobertaModel(config), texts(), tokens_and_pooled("text"))


CASES = {
    "bert": bert,
    "bert_relu_deeper": functools.partial(bert, hidden_act="relu", num_hidden_layers=3, layer_norm_eps=1e-5),
    "bert_masked_lm": bert_without_pooler,
    "roberta": roberta,
    "roberta_gelu_tanh": functools.partial(roberta, hidden_act="gelu_new", num_attention_heads=2),
}
