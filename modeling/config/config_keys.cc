#include "modeling/config/config_keys.h"

namespace fathom {
namespace {

constexpr HarmlessKey kConfigKeys[] = {
    // The origin of the file.
    {"_name_or_path"},
    {"_commit_hash"},
    {"transformers_version"},
    {"transformers.js_config"},
    {"unsloth_fixed"},
    {"unsloth_version"},
    {"is_llama_config"},
    // Training, and dropout, which inference never applies.
    {"initializer_range"},
    {"attention_dropout"},
    {"attn_pdrop"},
    {"embd_pdrop"},
    {"resid_pdrop"},
    {"hidden_dropout"},
    {"hidden_dropout_prob"},
    {"attention_probs_dropout_prob"},
    {"gradient_checkpointing"},
    {"neftune_noise_alpha"},
    // Splits GEMMs during training; the sums are the same.
    {"pretraining_tp"},
    // How another program runs the model, or what it returns in addition to the logits.
    {"use_cache"},
    {"use_bfloat16"},
    {"tf_legacy_loss"},
    {"torchscript"},
    {"return_dict"},
    {"use_return_dict"},
    {"output_attentions"},
    {"output_hidden_states"},
    {"output_scores"},
    {"return_dict_in_generate"},
    {"use_flash_attn"},
    {"_flash_attn_2_enabled"},
    {"_attn_implementation"},
    {"_attn_implementation_internal"},
    {"_attn_implementation_autoset"},
    {"attn_implementation"},
    // For classifiers.
    {"finetuning_task"},
    {"id2label"},
    {"label2id"},
    {"problem_type"},
    {"task_specific_params"},
    // For the tokenizer. Sequences are never padded with a token, and there is no encoder.
    {"tokenizer_class"},
    {"pad_token_id"},
    {"sep_token_id"},
    {"decoder_start_token_id"},
    // Other names of a length that transformers does not read either, and lengths that a request
    // sets.
    {"max_sequence_length"},
    {"model_max_length"},
    {"max_length"},
    {"max_new_tokens"},
    // These change the model, unless they have these values: the defaults of transformers'
    // PretrainedConfig.
    {"partial_rotary_factor", 1.0},
    {"rope_interleaved", false},
    {"is_encoder_decoder", false},
    {"is_decoder", false},
    {"add_cross_attention", false},
    {"tie_encoder_decoder", false},
    {"pruned_heads", EmptyValue{}},
    {"chunk_size_feed_forward", 0.0},
    {"prefix", EmptyValue{}},
    // These change the tokens, unless they have these values. They are in configurations that are
    // older than generation_config.json.
    {"do_sample", false},
    {"temperature", 1.0},
    {"top_k", 50.0},
    {"top_p", 1.0},
    {"typical_p", 1.0},
    {"repetition_penalty", 1.0},
    {"length_penalty"},
    {"early_stopping"},
    {"min_length", 0.0},
    {"num_beams", 1.0},
    {"num_beam_groups", 1.0},
    {"diversity_penalty", 0.0},
    {"num_return_sequences", 1.0},
    {"no_repeat_ngram_size", 0.0},
    {"encoder_no_repeat_ngram_size", 0.0},
    {"bad_words_ids", EmptyValue{}},
    {"suppress_tokens", EmptyValue{}},
    {"begin_suppress_tokens", EmptyValue{}},
    {"remove_invalid_values", false},
};

}  // namespace

std::span<const HarmlessKey> HarmlessConfigKeys() { return kConfigKeys; }

}  // namespace fathom
