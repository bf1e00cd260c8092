// text/normalizer.h: Unicode's canonical composition (NFC), keeping track of spans.
// O(n log n) for any text. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace fathom::router {

// Whether NFC could be another text. False for most; true may be wrong.
bool NfcMayChange(std::string_view text);

// Writes NFC(text) to *out and, to *out_spans, where `spans` are in it (grown to whole groups of
// characters that compose with one another). False, with both untouched, if the text need not be
// looked at: it is NFC. REQUIRES: `text` is UTF-8; spans ascending and disjoint.
bool NormalizeNfc(std::string_view text, std::span<const ByteSpan> spans, std::string* out,
                  std::vector<ByteSpan>* out_spans);

}  // namespace fathom::router
