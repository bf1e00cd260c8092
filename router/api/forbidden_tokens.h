// router/api/forbidden_tokens.h: finds the tokens that `bad_words` and `allowed_token_ids` forbid.
// Pure.
#pragma once

#include "common/status.h"
#include "router/api/admission.h"
#include "text/tokenizer.h"

namespace fathom::router {

// Fills sampling->forbidden_ids. A bad word must be one token; with a space before it, if that is
// one token too, it is forbidden as well. At most kLogitBiasMax tokens can be forbidden. Errors:
// INVALID_ARGUMENT, or UNIMPLEMENTED for what no forbidden tokens can do. `tokenizer`: null: the
// model has none.
absl::Status ResolveForbidden(const Tokenizer* tokenizer, const ModelFacts& facts,
                              PublicSampling* sampling);

}  // namespace fathom::router
