// modeling/config/config_rope.h: the rotary embedding of a config.json, in its older form
// (rope_theta and rope_scaling) and its newer one (rope_parameters). What each kind means:
// docs/MODELS.md, "Rotary embedding". Pure; any thread.
#pragma once

#include <cstdint>

#include "modeling/config/config_fields.h"
#include "modeling/config/model_config.h"

namespace fathom::worker {

// Reads rope_theta, rope_scaling and rope_parameters of `fields`; errors stick to it. `context` is
// the model's max_position_embeddings.
void ReadRope(ConfigFields& fields, int32_t context, RopeConfig& rope);

}  // namespace fathom::worker
