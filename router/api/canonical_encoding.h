// router/api/canonical_encoding.h: a request as bytes, for its identity (identity.h). Equal
// requests have equal bytes, and different requests have different bytes. No code decodes them.
// Pure.
//
// A struct is encoded as its fields in the order of their tags. A field is encoded as its tag
// (1 byte), the length of its value (8 bytes) and its value. A field that has its default value (an
// absent optional, an empty text or list, false) is left out. Therefore a request that does not use
// a new field keeps its bytes and its id. An optional field that is present is always written. All
// numbers are little-endian. Values:
//   text: its bytes; bool: one byte, 0 or 1; integer: 8 bytes, two's complement; float: 4 bytes,
//   IEEE 754; struct: as above; list: for each element its length (8 bytes) and its value.
//
// Tags:
//   request    1 model, 2 sampling, 3 stop, 4 output, 5 prompt text, 6 prompt token ids, 7 chat,
//              8 truncate_prompt_tokens, 9 thinking, 10 guided
//   sampling   8 logit_bias (a list of structs: 1 id, 2 bias), 9 n, 11 bad_words,
//              12 allowed_token_ids; the numbers have the tags in common/sampling_fields.h
//   stop       1 max_tokens, 2 min_tokens, 3 strings, 4 token_ids, 5 ignore_eos, 6 include_stop
//   output     1 logprobs, 2 prompt_logprobs, 3 ids, 4 text, 5 keep_special
//   chat       1 messages, 2 tools, 3 enable_thinking, 4 add_generation_prompt, 5 allow_special,
//              6 kwargs, 7 continue_final_message, 8 tool_choice
//   tool_choice 1 kind ("none", "required", "named"), 2 name, 3 at most one call
//   thinking   1 token_budget, 2 effort
//   message    1 role, 2 content, 3 content_parts, 4 tool_calls, 5 tool_call_id, 6 name,
//              7 reasoning
//   tool call  1 id, 2 name, 3 arguments
//   guided     1 kind (as a number of GrammarKind), 2 text, 3 choices, 4 open (not closed)
// The tag of a removed field is never given to another field, or two different requests could have
// the same bytes. Any other change of this encoding needs a new kIdentityVersion.
//
// The encoding leaves out the fields that a repetition of a request may change (docs/API.md, "Seeds
// and ids"): request_id, seed, deadline_ms, priority and cache. It also leaves out the idempotency
// key, which is in the hash by itself.
#pragma once

#include <string>

#include "router/api/requests.h"

namespace fathom::router {

std::string CanonicalEncoding(const GenerateRequest& request);

}  // namespace fathom::router
