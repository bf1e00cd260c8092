// common/block_kind.h: what a cached KV block holds. A model whose layers keep different kinds of
// state has planes, and blocks, of several kinds; a block id is an index into the planes of one.
#pragma once

namespace fathom {

// kTokens: a vector for each token of the block.
enum class BlockKind { kTokens };

}  // namespace fathom
