// modeling/config/config_rope.h: the rotary embedding of a config.json, in the older form
// (rope_theta and rope_scaling) and in the newer form (rope_parameters). docs/MODELS.md, "Rotary
// embedding" explains each kind. Pure; any thread.
#pragma once

#include <cstdint>

#include "modeling/config/config_fields.h"
#include "modeling/config/model_config.h"

namespace fathom {

// Reads rope_theta, rope_scaling and rope_parameters of `fields`, which keeps the first error.
// `context` is the model's max_position_embeddings.
void ReadRope(ConfigFields& fields, int32_t context, RopeConfig& rope);

}  // namespace fathom
