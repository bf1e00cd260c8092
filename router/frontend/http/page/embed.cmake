# cmake -DFROM=index.html -DTO=page_html.cc -P embed.cmake: writes the page as a C++ text.
file(READ "${FROM}" page)
file(WRITE "${TO}" "#include \"router/frontend/http/page/page_html.h\"\n\nnamespace fathom::router {\nconst std::string_view kPageHtml = R\"page(${page})page\";\n}  // namespace fathom::router\n")
