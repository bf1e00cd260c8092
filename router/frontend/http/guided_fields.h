// router/frontend/http/guided_fields.h: the fields of a body that ask for guided output: OpenAI's
// response_format, and vLLM's structured_outputs and guided_*. Pure.
#pragma once

#include "router/api/admission.h"
#include "router/frontend/http/field_reader.h"

namespace fathom::router {

// At most one of them may be set; an error names the field.
void ReadGuided(FieldReader* body, PublicRequest* request);

}  // namespace fathom::router
