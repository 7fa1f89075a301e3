"""What every part needs: errors, files, parameters, parallel maps, hardware."""
