// router/api/stop_tokens.h: stop strings that contain a token which never appears in a text.
// Special tokens are not part of the text (unless output.keep_special is set), and in a chat
// <think> and </think> are neither in the reasoning nor in the text. A stop string that contains
// such a token would therefore never be found. Pure.
#pragma once

#include "common/status.h"
#include "router/api/admission.h"
#include "text/tokenizer.h"

namespace fathom::router {

// If a stop string is exactly such a token, the token's id is added to stop.token_ids. If a stop
// string contains such a token and other text: INVALID_ARGUMENT (reason STOP_NEVER_FOUND).
absl::Status ResolveStopStrings(const Tokenizer& tokenizer, bool chat, PublicRequest* request);

}  // namespace fathom::router
