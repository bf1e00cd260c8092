// router/frontend/http/page/page_html.h: the bytes of index.html, which the build embeds
// (embed.cmake).
#pragma once

#include <string_view>

namespace fathom::router {

extern const std::string_view kPageHtml;

}  // namespace fathom::router
