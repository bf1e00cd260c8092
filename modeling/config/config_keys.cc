#include "modeling/config/config_keys.h"

namespace fathom::worker {
namespace {

constexpr HarmlessKey kConfigKeys[] = {
    // Where the file comes from.
    {"_name_or_path"},
    {"_commit_hash"},
    {"transformers_version"},
    {"unsloth_fixed"},
    {"unsloth_version"},
    // Training, and the dropout that inference never applies.
    {"initializer_range"},
    {"attention_dropout"},
    {"gradient_checkpointing"},
    // Splits training's products; the sums are the same.
    {"pretraining_tp"},
    // How another program runs the model, or what it returns beside the logits.
    {"use_cache"},
    {"use_bfloat16"},
    {"torchscript"},
    {"return_dict"},
    {"output_attentions"},
    {"output_hidden_states"},
    {"_attn_implementation"},
    {"_attn_implementation_autoset"},
    {"attn_implementation"},
    // Of classifiers.
    {"finetuning_task"},
    {"id2label"},
    {"label2id"},
    {"problem_type"},
    {"task_specific_params"},
    // The tokenizer's; sequences are never padded with a token.
    {"tokenizer_class"},
    {"pad_token_id"},
    // Says which layers have a sliding window, and none has one here.
    {"max_window_layers"},
    // Change the result, except with these values.
    {"partial_rotary_factor", 1.0},
    {"rope_interleaved", false},
    {"is_encoder_decoder", false},
    {"add_cross_attention", false},
};

constexpr HarmlessKey kGenerationKeys[] = {
    {"_from_model_config"},
    {"transformers_version"},
    // What another program returns beside the tokens.
    {"use_cache"},
    {"output_attentions"},
    {"output_hidden_states"},
    {"output_scores"},
    {"output_logits"},
    {"return_dict_in_generate"},
    // Lengths are the request's.
    {"max_length"},
    {"max_new_tokens"},
    {"pad_token_id"},
    // Of beam search.
    {"length_penalty"},
    {"early_stopping"},
    // Change the tokens, except with these values.
    {"num_beams", 1.0},
    {"num_beam_groups", 1.0},
    {"num_return_sequences", 1.0},
    {"min_length", 0.0},
    {"typical_p", 1.0},
    {"epsilon_cutoff", 0.0},
    {"eta_cutoff", 0.0},
    {"diversity_penalty", 0.0},
    {"no_repeat_ngram_size", 0.0},
    {"encoder_no_repeat_ngram_size", 0.0},
    {"encoder_repetition_penalty", 1.0},
    {"remove_invalid_values", false},
    {"renormalize_logits", false},
};

}  // namespace

std::span<const HarmlessKey> HarmlessConfigKeys() { return kConfigKeys; }
std::span<const HarmlessKey> HarmlessGenerationKeys() { return kGenerationKeys; }

}  // namespace fathom::worker
