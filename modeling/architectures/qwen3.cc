// Qwen3: Llama with an RMSNorm of each query and key head before the rotary embedding.
#include "modeling/architectures/architecture.h"
#include "modeling/config/config_fields.h"

namespace fathom {
namespace {

void ConfigureQwen3(ConfigFields& fields, ModelConfig& config) {
  config.qk_norm = true;
  fields.MustBe("attention_bias", false, "Qwen3ForCausalLM is supported without attention biases");
  fields.MustBe("mlp_bias", false, "Qwen3ForCausalLM has no biases in its MLP");
}

}  // namespace

extern const Architecture kQwen3 = {
    "Qwen3ForCausalLM",
    "qwen3",
    {.context = 32768, .kv_heads = 32, .head_dim = 128, .has_windows = true},
    ConfigureQwen3,
    DecoderSpec};

}  // namespace fathom
