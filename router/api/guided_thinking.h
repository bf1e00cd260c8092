// router/api/guided_thinking.h: guided output of a model that thinks first: the grammar is for the
// answer, which begins after the token that ends thinking. Pure.
#pragma once

#include "common/types.h"
#include "text/guided/grammar_spec.h"

namespace fathom::router {

// Any tokens, then `end`, then what `spec` says. REQUIRES: CheckGrammarSpec(spec) is OK.
GrammarSpec AfterThinking(const GrammarSpec& spec, TokenId end);

}  // namespace fathom::router
