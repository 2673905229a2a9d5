"""Paper: documents as PDF pages (PDF/A-3a and PDF/UA-1, by Typst) and the signatures on them (PAdES, by pyHanko)."""
