// router/api/stop_tokens.h: stop strings that spell a token which is in no text.
// Special tokens are left out of the text (unless output.keep_special), and a chat's <think> and
// </think> stand between its two texts, so a stop string with such a token in it would never be
// found. Pure.
#pragma once

#include "common/status.h"
#include "router/api/admission.h"
#include "text/tokenizer.h"

namespace fathom::router {

// A stop string that is one such token becomes its id too (stop.token_ids). One that has such a
// token in it beside other text is INVALID_ARGUMENT (reason STOP_NEVER_FOUND), with the way out.
absl::Status ResolveStopStrings(const Tokenizer& tokenizer, bool chat, PublicRequest* request);

}  // namespace fathom::router
